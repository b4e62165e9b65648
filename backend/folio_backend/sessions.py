"""Sessions: token ids and the page table that serves them, living on after a request ends.

Knows who owns a session and which generations wait for it; not what its tokens mean. Runs under the engine's lock.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from folio_backend.cache.kv_cache import KVCache
from folio_backend.cache.page_table import PageTable
from folio_backend.generation import Generation


@dataclass(eq=False)
class Session:
    """A conversation at rest or in use.

    Attributes:
        tenant: who owns it.
        session_id: its name, unique within the tenant.
        table: its pages: parked at rest, running while a generation uses it.
        token_ids: its history; every sampled token is kept, also one that ended a turn.
        generations: those that use it, in order of arrival; the first one runs.
        num_turns: turns that left a trace in the history.
        kept_keys: keys of the full pages of the history, as the registry counted them.
    """

    tenant: str
    session_id: str
    table: PageTable
    token_ids: list[int] = field(default_factory=list)
    generations: deque[Generation] = field(default_factory=deque)
    num_turns: int = 0
    kept_keys: list[bytes] = field(default_factory=list)

    @property
    def is_idle(self) -> bool:
        """Whether no generation uses it."""
        return not self.generations


class SessionRegistry:
    """All sessions.

    Args:
        cache: where their pages are.
        max_sessions: beyond it the idle session used longest ago is forgotten.
    """

    def __init__(self, cache: KVCache, max_sessions: int) -> None:
        self._cache = cache
        self._max_sessions = max_sessions
        self._sessions: OrderedDict[tuple[str, str], Session] = OrderedDict()
        self._num_sessions_of_key: Counter[bytes] = Counter()
        self.num_forgotten = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def find(self, tenant: str, session_id: str) -> Session | None:
        """The tenant's session of that name, if there is one."""
        return self._sessions.get((tenant, session_id))

    def add(self, session: Session) -> None:
        """Keeps a session, forgetting the idle one used longest ago when there are too many."""
        self._sessions[session.tenant, session.session_id] = session
        if len(self._sessions) > self._max_sessions:
            oldest = next((other for other in self if other.is_idle and other is not session), None)
            if oldest is not None:
                self.close(oldest)
                self.num_forgotten += 1

    def discard_if_empty(self, session: Session) -> None:
        """Drops a session that nobody uses and in which nothing was ever said."""
        if session.is_idle and not session.token_ids:
            self.close(session)

    def rest(self, session: Session, token_ids: list[int]) -> None:
        """Parks a session's table after a generation, with `token_ids` as its history from now on."""
        if session.table.is_running:
            self._cache.park(session.table)
        self.set_history(session, token_ids)
        self._sessions.move_to_end((session.tenant, session.session_id))

    def set_history(self, session: Session, token_ids: list[int]) -> None:
        """Makes `token_ids` the history of an idle session; what its table holds beyond them is cut off."""
        session.token_ids = token_ids
        self._cache.truncate(session.table, len(token_ids))
        self._uncount(session)
        session.kept_keys = list(session.table.keys)
        self._num_sessions_of_key.update(session.kept_keys)

    def close(self, session: Session) -> None:
        """Ends an idle session and frees the pages that no other session's history includes."""
        del self._sessions[session.tenant, session.session_id]
        self._uncount(session)
        self._cache.drop_open_page(session.table)
        self._cache.forget([key for key in session.table.keys if not self._num_sessions_of_key[key]])

    def _uncount(self, session: Session) -> None:
        self._num_sessions_of_key.subtract(session.kept_keys)
        for key in session.kept_keys:
            if self._num_sessions_of_key[key] == 0:
                del self._num_sessions_of_key[key]
        session.kept_keys = []
