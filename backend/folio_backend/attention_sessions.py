"""The sessions of an attention model: which pages hold each one's history, and which session goes when pages run out.

There are no tokens: no page has a key, nothing is shared, and a session is kept or evicted as a whole. Knows page
tables by number, never what the pages hold. Runs under the service's lock.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from folio_backend.cache.kv_cache import KVCache
from folio_backend.cache.page import PageKind, PageState
from folio_backend.cache.page_store import PageCount
from folio_backend.cache.page_table import PageTable
from folio_backend.errors import InvalidArgument, NotFound, Unavailable
from folio_kernels.layout import PAGE_SIZE

RETRY_AFTER_MS = 100
"""When a step that found no room may ask again: the next batch is another one."""


@dataclass(frozen=True, eq=False)
class AttentionSession:
    """A history and the pages that hold it.

    Attributes:
        session_id: its name.
        table: its pages, held as long as the session is kept.
    """

    session_id: str
    table: PageTable

    @property
    def num_tokens(self) -> int:
        """Tokens of the history."""
        return self.table.num_computed_tokens


class AttentionSessions:
    """All sessions, least recently used first.

    Args:
        cache: where their pages are.
        max_sessions: how many are kept.
        max_history_tokens: tokens of one session at most; more than the pool can hold are never accepted.
    """

    def __init__(self, cache: KVCache, max_sessions: int, max_history_tokens: int) -> None:
        pool_tokens = (cache.store.num_pages.sealed + cache.sink_pages + 1) * PAGE_SIZE - 1
        self.max_history_tokens = min(max_history_tokens, pool_tokens)
        self.num_evicted_pages = 0
        self._cache = cache
        self._max_sessions = max_sessions
        self._sessions: OrderedDict[str, AttentionSession] = OrderedDict()
        self._evicted_ids: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[AttentionSession]:
        return iter(self._sessions.values())

    def begin_step(
        self, session_id: str, position: int | None, num_new: int, in_batch: Collection[str]
    ) -> AttentionSession:
        """Takes the pages of a step, starting its session if need be; `commit` or `roll_back` ends the step.

        Args:
            session_id: whose step it is.
            position: the length that the client believes the session has; None for any.
            num_new: tokens of the step.
            in_batch: sessions of the running batch, which are not evicted.

        Raises:
            NotFound: the step continues a session that is not there.
            InvalidArgument: the position differs from the length, or the history would grow too long.
            Unavailable: there is no room beside the sessions of the batch. Nothing has changed, in any of these.
        """
        session = self._sessions.get(session_id)
        if session is None:
            self._check_start(session_id, position)
            session = AttentionSession(session_id, PageTable(prefix_keys=None, is_running=True))
        _check_position(position, session.num_tokens)
        self._check_history(session.num_tokens + num_new)
        victims = self._victims(session, num_new, in_batch)
        for victim in victims:
            self._evict(victim)
        has_pages = self._cache.extend(session.table, num_new)
        assert has_pages, "pages are gone that were counted"
        self._sessions[session_id] = session
        return session

    def commit(self, session: AttentionSession, num_new: int) -> None:
        """Makes a step's tokens part of its session's history: what the step sealed is stored, what it left is open."""
        self._cache.commit(session.table, (), num_new)
        self._sessions.move_to_end(session.session_id)
        self._evicted_ids.pop(session.session_id, None)

    def roll_back(self, session: AttentionSession) -> None:
        """Undoes `begin_step`; a session that it started is gone again."""
        self._cache.roll_back(session.table)
        if session.num_tokens == 0:
            del self._sessions[session.session_id]

    def close(self, session_id: str) -> int:
        """Ends a session and frees its pages.

        Returns:
            How many tokens it held.

        Raises:
            NotFound: there is no such session.
        """
        session = self._sessions.pop(session_id, None)
        if session is None:
            raise NotFound("There is no such session.", field="session_id")
        num_tokens = session.num_tokens
        self._cache.release(session.table)
        return num_tokens

    def close_all(self) -> None:
        """Ends every session."""
        for session_id in list(self._sessions):
            self.close(session_id)

    def num_pages(self) -> dict[tuple[PageKind, PageState], int]:
        """How many pages of each kind are in each state."""
        return dict(self._cache.store.count_states())

    def check_integrity(self) -> None:
        """Checks, between batches, that sessions and pages add up.

        Raises:
            AssertionError: `PageStore.check_integrity` does not hold, or a session's pages do not match its length.
        """
        self._cache.store.check_integrity(session.table for session in self)
        for session in self:
            table = session.table
            assert session.num_tokens > 0, "a session holds nothing"
            assert not table.filling, "a step was never ended"
            assert not table.sealing, "a step was never ended"
            assert (table.open_page is None) == (table.num_open_tokens == 0), "an open page without tokens"
            kinds = [page.kind is PageKind.RAW for page in table.pages]
            assert kinds == [index < self._cache.sink_pages for index in range(len(kinds))], "a page of a wrong kind"

    def _check_start(self, session_id: str, position: int | None) -> None:
        if position or (position is None and session_id in self._evicted_ids):
            raise NotFound(
                "There is no such session: it was never started, was closed, or its pages were evicted.",
                field="session_id",
                allowed="a session that is kept, or position 0 to start one",
            )

    def _check_history(self, num_tokens: int) -> None:
        if num_tokens > self.max_history_tokens:
            raise InvalidArgument(
                f"The history would hold {num_tokens} tokens.",
                field="query",
                allowed=f"histories of up to {self.max_history_tokens} tokens",
                reason="history_length",
            )

    def _victims(self, session: AttentionSession, num_new: int, in_batch: Collection[str]) -> list[AttentionSession]:
        """The sessions to evict for a step, least recently used first, none that would not help."""
        needed = self._cache.pages_for(session.num_tokens, num_new)
        free = self.num_pages()
        missing = Counter({kind: needed.of(kind) - free[kind, PageState.FREE] for kind in PageKind})
        num_surplus = len(self) + (session.session_id not in self._sessions) - self._max_sessions
        victims = []
        for other in self:
            if num_surplus <= 0 and not +missing:
                break
            held = Counter(page.kind for page in other.table.held_pages())
            if other.session_id not in in_batch and (num_surplus > 0 or +missing & held):
                victims.append(other)
                missing.subtract(held)
                num_surplus -= 1
        if +missing or num_surplus > 0:
            raise _no_room(needed)
        return victims

    def _evict(self, session: AttentionSession) -> None:
        self.num_evicted_pages += len(session.table.held_pages())
        self.close(session.session_id)
        self._evicted_ids[session.session_id] = None
        while len(self._evicted_ids) > self._max_sessions:
            self._evicted_ids.popitem(last=False)


def _check_position(position: int | None, num_tokens: int) -> None:
    if position is not None and position != num_tokens:
        raise InvalidArgument(
            f"position is {position} but the session holds {num_tokens} tokens.",
            field="position",
            allowed=str(num_tokens),
            reason="position",
        )


def _no_room(needed: PageCount) -> Unavailable:
    return Unavailable(
        f"There is no room for {needed.raw} raw and {needed.sealed} sealed pages beside the sessions of this batch.",
        retry_after_ms=RETRY_AFTER_MS,
        reason="no_pages",
    )
