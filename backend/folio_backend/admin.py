"""Admin operations carried out on an engine.

Knows what each operation does; how it is written and who may call it is `operations`'. A new operation is an entry
there and a method in the table here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from folio_backend import engine_state
from folio_backend.engine import Engine
from folio_backend.errors import AlreadyExists, InvalidArgument, NotFound, Unavailable
from folio_backend.request import Operation
from folio_backend.sessions import Session

Answer = dict[str, object]


class Admin:
    """Operations on one engine.

    Args:
        engine: whose sessions and requests these are.
        settings: what `stats` shows of the settings, without secrets.
        num_recompilations: compilations since the model became ready.
    """

    def __init__(self, engine: Engine, settings: Mapping[str, object], num_recompilations: Callable[[], int]) -> None:
        self._engine = engine
        self._settings = settings
        self._num_recompilations = num_recompilations
        self._actions: dict[str, Callable[[Operation], Answer]] = {
            "stats": self._stats,
            "health": self._health,
            "sessions": self._sessions,
            "close": self._close,
            "fork": self._fork,
            "truncate": self._truncate,
            "cancel": self._cancel,
        }

    def run(self, operation: Operation) -> Answer:
        """Carries an operation out; takes milliseconds.

        Raises:
            FolioError: what it names is not there, in use, or there already.
        """
        return self._engine.locked(lambda: self._actions[operation.name](operation))

    def _stats(self, operation: Operation) -> Answer:
        del operation
        return engine_state.stats(self._engine, self._settings, self._num_recompilations())

    def _health(self, operation: Operation) -> Answer:
        del operation
        return engine_state.health(self._engine)

    def _sessions(self, operation: Operation) -> Answer:
        own = [session for session in self._engine.parts.sessions if session.tenant == operation.tenant]
        return {"sessions": [self._description(session) for session in own]}

    def _description(self, session: Session) -> Answer:
        table, cache = session.table, self._engine.parts.cache
        resident = table.num_computed_tokens
        if not table.is_running:
            resident = cache.num_resident_tokens(table.keys) + table.num_open_tokens
        return {
            "session_id": session.session_id,
            "num_tokens": len(session.token_ids),
            "num_resident_tokens": resident,
            "num_turns": session.num_turns,
            "idle": session.is_idle,
        }

    def _close(self, operation: Operation) -> Answer:
        session = self._idle_session(operation)
        self._engine.parts.sessions.close(session)
        return {"closed": session.session_id, "num_tokens": len(session.token_ids)}

    def _fork(self, operation: Operation) -> Answer:
        session = self._idle_session(operation)
        new_id = str(operation.arguments["new_session_id"])
        sessions, cache = self._engine.parts.sessions, self._engine.parts.cache
        if sessions.find(operation.tenant, new_id) is not None:
            raise AlreadyExists(
                "There is a session of the new name already.",
                field="new_session_id",
                allowed="an unused name",
            )
        table, copied = cache.fork(session.table)
        if copied is not None:
            source, target = copied
            self._engine.parts.runner.operations.pool.copy_raw_page(source.page_id, target.page_id)
        fork = Session(operation.tenant, new_id, table, num_turns=session.num_turns)
        sessions.set_history(fork, list(session.token_ids))  # first: adding may close the source and free its pages
        sessions.add(fork)
        return self._description(fork)

    def _truncate(self, operation: Operation) -> Answer:
        session = self._idle_session(operation)
        num_tokens = operation.arguments["num_tokens"]
        assert isinstance(num_tokens, int)
        if num_tokens > len(session.token_ids):
            raise InvalidArgument(
                f"num_tokens is {num_tokens} but the session holds {len(session.token_ids)}.",
                field="num_tokens",
                allowed=f"0 to {len(session.token_ids)}",
            )
        self._engine.parts.sessions.set_history(session, session.token_ids[:num_tokens])
        return self._description(session)

    def _cancel(self, operation: Operation) -> Answer:
        request_id = operation.arguments.get("request_id")
        session_id = operation.arguments.get("session_id")
        tenant = operation.tenant
        count = self._engine.cancel(
            lambda generation: (
                generation.request.tenant == tenant
                and (
                    generation.request.request_id == request_id
                    if request_id is not None
                    else generation.request.session_id == session_id
                )
            )
        )
        if not count:
            name = "request_id" if request_id is not None else "session_id"
            raise NotFound("No request of that name is waiting or running.", field=name)
        return {"cancelled": count}

    def _idle_session(self, operation: Operation) -> Session:
        session = self._engine.parts.sessions.find(operation.tenant, str(operation.arguments["session_id"]))
        if session is None:
            raise NotFound("There is no such session.", field="session_id")
        if not session.is_idle:
            raise Unavailable(
                f"{len(session.generations)} requests use the session.",
                field="session_id",
                allowed="a session that no request uses",
                retry_after_ms=1_000,
                reason="session_busy",
            )
        return session
