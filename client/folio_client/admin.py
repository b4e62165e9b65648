"""The admin operations of a model, a method each.

Knows each operation's arguments and answer. What it does is the server's to say; `aio_admin` is the same for asyncio.
"""

from __future__ import annotations

from typing import Any

from folio_client.calls import Caller
from folio_client.documents import READS, read_document, read_health, read_session, read_sessions, read_stats
from folio_client.requests import operation_document
from folio_client.types import Health, SessionInfo, Stats


class Admin:
    """Operations on one model.

    Args:
        caller: carries them out.
        model: the model's name.
        is_batched: whether it is an attention model, which answers once and in batches.
    """

    def __init__(self, caller: Caller, model: str, *, is_batched: bool = False) -> None:
        self._caller = caller
        self._model = model
        self._is_batched = is_batched

    def stats(self, *, timeout_s: float | None = None) -> Stats:
        """Counts of requests, sessions, pages and bytes."""
        return read_stats(self.run("stats", timeout_s=timeout_s))

    def health(self, *, timeout_s: float | None = None) -> Health:
        """Whether the model still works, by its own account."""
        return read_health(self.run("health", timeout_s=timeout_s))

    def sessions(self, *, timeout_s: float | None = None) -> tuple[SessionInfo, ...]:
        """All sessions. Needs the admin token where the server has one."""
        return read_sessions(self.run("sessions", timeout_s=timeout_s))

    def close(self, session_id: str, *, timeout_s: float | None = None) -> int:
        """Ends a session; returns how many tokens it held. Raises NotFound."""
        return int(self.run("close", session_id=session_id, timeout_s=timeout_s)["num_tokens"])

    def fork(self, session_id: str, new_session_id: str, *, timeout_s: float | None = None) -> SessionInfo:
        """Begins a new session with the same history. Raises NotFound and AlreadyExists."""
        answer = self.run("fork", session_id=session_id, new_session_id=new_session_id, timeout_s=timeout_s)
        return read_session(answer)

    def truncate(self, session_id: str, num_tokens: int, *, timeout_s: float | None = None) -> SessionInfo:
        """Has a session forget all but its first tokens. Raises NotFound."""
        answer = self.run("truncate", session_id=session_id, num_tokens=num_tokens, timeout_s=timeout_s)
        return read_session(answer)

    def cancel(
        self, *, request_id: str | None = None, session_id: str | None = None, timeout_s: float | None = None
    ) -> int:
        """Ends requests by their name or by their session's; returns how many. Raises NotFound where there are none."""
        answer = self.run("cancel", request_id=request_id, session_id=session_id, timeout_s=timeout_s)
        return int(answer["cancelled"])

    def run(self, name: str, *, timeout_s: float | None = None, **arguments: object) -> dict[str, Any]:
        """Any operation by its name; returns what the server answers. Arguments that are None are left out.

        Raises:
            FolioError: it is refused or fails.
        """
        document = operation_document(name, arguments, self._caller.settings.admin_token)
        answer = self._caller.operate(
            self._model, document, is_read=name in READS, is_batched=self._is_batched, timeout_s=timeout_s
        )
        return read_document(answer)
