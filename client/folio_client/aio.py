"""The asynchronous client: `client` for asyncio; see there for what the methods mean."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from folio_client.aio_admin import AsyncAdmin
from folio_client.aio_attention import AsyncAttention
from folio_client.aio_calls import AsyncCaller
from folio_client.aio_readiness import wait_ready
from folio_client.aio_session import AsyncSession
from folio_client.batch import DEFAULT_CONCURRENCY, plan_batch
from folio_client.calls import DEFAULT_TIMEOUT_S, CallSettings
from folio_client.client import DEFAULT_ATTENTION_MODEL, DEFAULT_MODEL
from folio_client.connection import DEFAULT_URL, Connection, ConnectionOptions
from folio_client.errors import FolioError
from folio_client.generation import Generation
from folio_client.observer import Observer, SilentObserver
from folio_client.options import GenerateOptions
from folio_client.requests import GenerateRequest, SessionTurn
from folio_client.retry import RetryPolicy
from folio_client.session_state import SessionState, new_session_id
from folio_client.streams import AsyncGenerationStream
from folio_client.transports import open_async_transport
from folio_client.types import GenerateResult, Message, WarmUpResult
from folio_client.warm_up import DEFAULT_NUM_REQUESTS, WARM_UP_OPTIONS, WARM_UP_PROMPT, WarmUp
from folio_client.wire import AsyncTransport

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class AsyncClient:
    """A client of one server, for one event loop; made inside it.

    >>> async def main() -> str:
    ...     async with AsyncClient("grpc://localhost:8001") as client, client.session() as session:
    ...         async with session.stream("The capital of France is", max_tokens=2, temperature=0) as stream:
    ...             return "".join([delta.text async for delta in stream])
    >>> asyncio.run(main())
    ' Paris.'

    Args:
        url: `grpc://host:port`, `grpcs://`, `http://` or `https://`.
        model: the generate model that is meant.
        attention_model: the attention model that `attention` means.
        timeout_s: for requests that name no other, in seconds.
        retry: when to ask again.
        admin_token: for operations that need one.
        observer: told of every request, such as `instrumentation.ClientMetrics`.
        transport: another way to the server than the URL's; the client closes it.
        connection: see `ConnectionOptions`: `api_key`, `bearer_token`, `headers`, `tls`, `max_connections`.

    Attributes:
        admin: the generate model's operations.
        attention: the attention model.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        model: str = DEFAULT_MODEL,
        attention_model: str = DEFAULT_ATTENTION_MODEL,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry: RetryPolicy | None = None,
        admin_token: str | None = None,
        observer: Observer | None = None,
        transport: AsyncTransport | None = None,
        **connection: Unpack[ConnectionOptions],
    ) -> None:
        settings = CallSettings(timeout_s, retry or RetryPolicy(), admin_token, observer or SilentObserver())
        self._transport = transport or open_async_transport(Connection.parse(url, connection))
        self._caller = AsyncCaller(self._transport, settings)
        self.model = model
        self.admin = AsyncAdmin(self._caller, model)
        self.attention = AsyncAttention(self._caller, attention_model)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """See `Client.close`."""
        await self._transport.close()

    async def generate(self, prompt: str, **options: Unpack[GenerateOptions]) -> GenerateResult:
        """See `Client.generate`."""
        return await self.stream(prompt, **options).collect()

    async def chat(
        self, messages: Sequence[Message], session: AsyncSession | str | None = None, **options: Unpack[GenerateOptions]
    ) -> GenerateResult:
        """See `Client.chat`."""
        return await self.stream(messages, session, **options).collect()

    def stream(
        self,
        prompt: str | Sequence[Message],
        session: AsyncSession | str | None = None,
        **options: Unpack[GenerateOptions],
    ) -> AsyncGenerationStream:
        """See `Client.stream`."""
        if isinstance(session, AsyncSession):
            return session.stream(prompt, **options)
        turn = None if session is None else SessionTurn(session, None)
        request = GenerateRequest.of(prompt, options, turn)
        generation = Generation(request.request_id)
        return AsyncGenerationStream(self._caller.generate(self.model, request, generation), generation)

    def session(self, session_id: str | None = None, *, resume: bool = False, keep: bool = False) -> AsyncSession:
        """See `Client.session`; one that is to be resumed is asked for when it is entered."""
        state = SessionState(session_id or new_session_id(), None if resume else 0)
        return AsyncSession(self._caller, self.admin, self.model, state, keep=keep, is_resumed=resume)

    async def generate_batch(
        self,
        prompts: Sequence[str],
        *,
        deduplicate: bool | None = None,
        max_concurrency: int = DEFAULT_CONCURRENCY,
        **options: Unpack[GenerateOptions],
    ) -> list[GenerateResult]:
        """See `Client.generate_batch`."""
        plan = plan_batch(prompts, options, deduplicate=deduplicate, max_concurrency=max_concurrency)
        free = asyncio.Semaphore(max_concurrency)

        async def outcome(prompt: str) -> GenerateResult | FolioError:
            async with free:
                try:
                    return await self.generate(prompt, **options)
                except FolioError as error:
                    return error

        return plan.results(await asyncio.gather(*map(outcome, plan.prompts)))

    async def is_ready(self, *, timeout_s: float | None = None) -> bool:
        """See `Client.is_ready`."""
        deadline = self._caller.settings.deadline(timeout_s)
        return await self._caller.call(
            "operation",
            self.model,
            lambda left_s: self._transport.is_ready(self.model, left_s),
            deadline,
            is_repeatable=True,
        )

    async def wait_ready(self, timeout_s: float) -> None:
        """See `Client.wait_ready`."""
        await wait_ready(self._caller, self.admin, self.model, timeout_s)

    async def warm_up(
        self, num_requests: int = DEFAULT_NUM_REQUESTS, *, max_concurrency: int = 1, prompt: str = WARM_UP_PROMPT
    ) -> WarmUpResult:
        """See `Client.warm_up`."""
        warming = WarmUp(num_requests, max_concurrency, prompt)
        while prompts := warming.next_prompts():
            warming.add(
                await self.generate_batch(
                    prompts, deduplicate=False, max_concurrency=max_concurrency, **WARM_UP_OPTIONS
                )
            )
        return warming.result
