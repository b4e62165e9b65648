"""`calls` for asyncio; see there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from typing import TypeVar

from folio_client.calls import CallSettings
from folio_client.errors import ConnectionFailed, DeadlineExceeded, FolioError, IncompleteResponse
from folio_client.generation import Generation
from folio_client.observer import Kind, observed
from folio_client.requests import (
    GenerateRequest,
    check_supported,
    operation_call,
    operation_tensors,
)
from folio_client.retry import Deadline
from folio_client.types import Delta, Tensor
from folio_client.wire import AsyncTransport, Outputs, TensorCall

Result = TypeVar("Result")


class AsyncCaller:
    """Carries requests out over one transport.

    Args:
        transport: the way to the server.
        settings: how.
        sleep: waits for some seconds.
    """

    def __init__(
        self,
        transport: AsyncTransport,
        settings: CallSettings,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.transport = transport
        self.settings = settings
        self._sleep = sleep
        self._input_names: dict[str, frozenset[str]] = {}

    async def generate(
        self, model: str, request: GenerateRequest, generation: Generation
    ) -> AsyncGenerator[Delta, None]:
        """See `Caller.generate`."""
        deadline = self.settings.deadline(request.options.get("timeout_s"))
        with observed(self.settings.observer, "generate", model, generation):
            inputs = await self.input_names(model, deadline)
            generation.start()

            async def begin(left_s: float) -> tuple[AsyncGenerator[Outputs, None], Outputs]:
                with generation.attempt():
                    return await _begun(self.transport.stream(request.call(model, inputs, left_s)))

            outputs, first = await self.call("generate", model, begin, deadline, is_repeatable=request.is_repeatable)
            async with aclosing(outputs):
                for delta in generation.deltas(first):
                    yield delta
                async for further in outputs:
                    for delta in generation.deltas(further):
                        yield delta
                generation.end()

    async def operate(
        self, model: str, operation: str, *, is_read: bool, is_batched: bool, timeout_s: float | None
    ) -> str:
        """See `Caller.operate`."""
        deadline = self.settings.deadline(timeout_s)

        async def attempt(left_s: float) -> str:
            if is_batched:
                answer = await self.transport.infer(operation_tensors(model, operation, left_s))
                return str(answer["result"].item().decode())
            outputs, first = await _begun(self.transport.stream(operation_call(model, operation, left_s)))
            with suppress(ConnectionFailed, DeadlineExceeded):
                async for _ in outputs:
                    pass
            return str(first["result"][0])

        with observed(self.settings.observer, "operation", model):
            check_supported({"op": operation}, await self.input_names(model, deadline), model)
            return await self.call("operation", model, attempt, deadline, is_repeatable=is_read)

    async def step(
        self, model: str, call: Callable[[float], TensorCall], *, is_repeatable: bool, timeout_s: float | None
    ) -> Mapping[str, Tensor]:
        """See `Caller.step`."""
        deadline = self.settings.deadline(timeout_s)

        async def attempt(left_s: float) -> Mapping[str, Tensor]:
            return await self.transport.infer(call(left_s))

        with observed(self.settings.observer, "step", model):
            return await self.call("step", model, attempt, deadline, is_repeatable=is_repeatable)

    async def input_names(self, model: str, deadline: Deadline) -> frozenset[str]:
        """See `Caller.input_names`."""
        if model not in self._input_names:
            self._input_names[model] = await self.call(
                "operation",
                model,
                lambda left_s: self.transport.input_names(model, left_s),
                deadline,
                is_repeatable=True,
            )
        return self._input_names[model]

    async def call(
        self,
        kind: Kind,
        model: str,
        attempt: Callable[[float], Awaitable[Result]],
        deadline: Deadline,
        *,
        is_repeatable: bool,
    ) -> Result:
        """See `Caller.call`."""
        num_attempts = 0
        while True:
            num_attempts += 1
            try:
                return await attempt(deadline.left_s)
            except FolioError as error:
                delay_s = self.settings.delay_s(kind, model, error, num_attempts, deadline, is_repeatable=is_repeatable)
            await self._sleep(delay_s)


async def _begun(outputs: AsyncGenerator[Outputs, None]) -> tuple[AsyncGenerator[Outputs, None], Outputs]:
    """A stream with its first response, which tells a refusal from a beginning."""
    first = await anext(outputs, None)
    if first is None:
        raise IncompleteResponse("The server ended the answer before it began.")
    return outputs, first
