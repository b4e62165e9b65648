"""`session` for asyncio; see there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from types import TracebackType
from typing import TYPE_CHECKING

from folio_client.aio_admin import AsyncAdmin
from folio_client.aio_calls import AsyncCaller
from folio_client.documents import find_session
from folio_client.errors import NotFound
from folio_client.generation import Generation
from folio_client.options import GenerateOptions
from folio_client.requests import GenerateRequest
from folio_client.session_state import SessionState, new_session_id
from folio_client.streams import AsyncGenerationStream
from folio_client.types import Delta, GenerateResult, Message, SessionInfo

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class AsyncSession:
    """One session; made by `AsyncClient.session`. See `Session`.

    One that is to be resumed asks for its length when it is entered (`async with`).
    """

    def __init__(
        self,
        caller: AsyncCaller,
        admin: AsyncAdmin,
        model: str,
        state: SessionState,
        *,
        keep: bool,
        is_resumed: bool = False,
    ) -> None:
        self._is_resumed = is_resumed
        self._caller = caller
        self._admin = admin
        self._model = model
        self._state = state
        self._keep = keep

    async def __aenter__(self) -> Self:
        if self._is_resumed:
            await self.resume()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._keep:
            await self.close()

    @property
    def session_id(self) -> str:
        """See `Session.session_id`."""
        return self._state.session_id

    @property
    def length(self) -> int | None:
        """See `Session.length`."""
        return self._state.length

    async def generate(self, prompt: str | Sequence[Message], **options: Unpack[GenerateOptions]) -> GenerateResult:
        """See `Session.generate`."""
        return await self.stream(prompt, **options).collect()

    async def chat(self, messages: Sequence[Message], **options: Unpack[GenerateOptions]) -> GenerateResult:
        """See `Session.chat`."""
        return await self.stream(messages, **options).collect()

    def stream(self, prompt: str | Sequence[Message], **options: Unpack[GenerateOptions]) -> AsyncGenerationStream:
        """See `Session.stream`."""
        request = GenerateRequest.of(prompt, options, self._state.next_turn())
        generation = Generation(request.request_id)
        return AsyncGenerationStream(self._turn(request, generation), generation)

    async def resume(self) -> SessionInfo:
        """See `Session.resume`."""
        info = find_session(await self._admin.sessions(), self.session_id)
        self._state.length = info.num_tokens
        return info

    async def fork(self, new_id: str | None = None, *, keep: bool = False) -> AsyncSession:
        """See `Session.fork`."""
        info = await self._admin.fork(self.session_id, new_id or new_session_id())
        state = SessionState(info.session_id, info.num_tokens)
        return AsyncSession(self._caller, self._admin, self._model, state, keep=keep)

    async def truncate(self, num_tokens: int) -> SessionInfo:
        """See `Session.truncate`."""
        info = await self._admin.truncate(self.session_id, num_tokens)
        self._state.length = info.num_tokens
        return info

    async def close(self) -> None:
        """See `Session.close`."""
        with suppress(NotFound):
            await self._admin.close(self.session_id)
        self._state.length = 0

    async def _turn(self, request: GenerateRequest, generation: Generation) -> AsyncGenerator[Delta, None]:
        with self._state.turn(generation):
            async with aclosing(self._caller.generate(self._model, request, generation)) as deltas:
                async for delta in deltas:
                    yield delta
