"""`admin` for asyncio; see there."""

from __future__ import annotations

from typing import Any

from folio_client.aio_calls import AsyncCaller
from folio_client.documents import READS, read_document, read_health, read_session, read_sessions, read_stats
from folio_client.requests import operation_document
from folio_client.types import Health, SessionInfo, Stats


class AsyncAdmin:
    """Operations on one model.

    Args:
        caller: carries them out.
        model: the model's name.
        is_batched: whether it is an attention model, which answers once and in batches.
    """

    def __init__(self, caller: AsyncCaller, model: str, *, is_batched: bool = False) -> None:
        self._caller = caller
        self._model = model
        self._is_batched = is_batched

    async def stats(self, *, timeout_s: float | None = None) -> Stats:
        """See `Admin.stats`."""
        return read_stats(await self.run("stats", timeout_s=timeout_s))

    async def health(self, *, timeout_s: float | None = None) -> Health:
        """See `Admin.health`."""
        return read_health(await self.run("health", timeout_s=timeout_s))

    async def sessions(self, *, timeout_s: float | None = None) -> tuple[SessionInfo, ...]:
        """See `Admin.sessions`."""
        return read_sessions(await self.run("sessions", timeout_s=timeout_s))

    async def close(self, session_id: str, *, timeout_s: float | None = None) -> int:
        """See `Admin.close`."""
        return int((await self.run("close", session_id=session_id, timeout_s=timeout_s))["num_tokens"])

    async def fork(self, session_id: str, new_session_id: str, *, timeout_s: float | None = None) -> SessionInfo:
        """See `Admin.fork`."""
        answer = await self.run("fork", session_id=session_id, new_session_id=new_session_id, timeout_s=timeout_s)
        return read_session(answer)

    async def truncate(self, session_id: str, num_tokens: int, *, timeout_s: float | None = None) -> SessionInfo:
        """See `Admin.truncate`."""
        return read_session(
            await self.run("truncate", session_id=session_id, num_tokens=num_tokens, timeout_s=timeout_s)
        )

    async def cancel(
        self, *, request_id: str | None = None, session_id: str | None = None, timeout_s: float | None = None
    ) -> int:
        """See `Admin.cancel`."""
        answer = await self.run("cancel", request_id=request_id, session_id=session_id, timeout_s=timeout_s)
        return int(answer["cancelled"])

    async def run(self, name: str, *, timeout_s: float | None = None, **arguments: object) -> dict[str, Any]:
        """Any operation by its name; returns what the server answers. Arguments that are None are left out.

        Raises:
            FolioError: it is refused or fails.
        """
        document = operation_document(name, arguments, self._caller.settings.admin_token)
        answer = await self._caller.operate(
            self._model, document, is_read=name in READS, is_batched=self._is_batched, timeout_s=timeout_s
        )
        return read_document(answer)
