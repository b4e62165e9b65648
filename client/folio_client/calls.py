"""Requests carried out: sent, repeated where that is safe, observed, and ended by their deadline.

Knows order and time. Does not know what a request says (`requests`), how it travels (the transports), or what callers
make of the answers (`client`, `session`, `admin`, `attention`). `aio_calls` is the same for asyncio.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TypeVar

from folio_client.errors import ConnectionFailed, DeadlineExceeded, FolioError, IncompleteResponse
from folio_client.generation import Generation
from folio_client.observer import Kind, Observer, observed
from folio_client.requests import (
    GenerateRequest,
    check_supported,
    operation_call,
    operation_tensors,
)
from folio_client.retry import Deadline, RetryPolicy
from folio_client.types import Delta, Tensor
from folio_client.wire import Outputs, TensorCall, Transport

Result = TypeVar("Result")

DEFAULT_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class CallSettings:
    """How requests are carried out.

    Attributes:
        timeout_s: for requests that name none.
        retry: when to ask again.
        admin_token: for operations that need it.
        observer: told of every request.
    """

    timeout_s: float
    retry: RetryPolicy
    admin_token: str | None = field(repr=False)
    observer: Observer

    def deadline(self, timeout_s: float | None) -> Deadline:
        """The deadline of a request that starts now."""
        return Deadline.after(self.timeout_s if timeout_s is None else timeout_s)

    def delay_s(
        self, kind: Kind, model: str, error: FolioError, num_attempts: int, deadline: Deadline, *, is_repeatable: bool
    ) -> float:
        """How long to wait before asking again, of which the observer is told; raises the error where it is the end."""
        delay_s = self.retry.delay_s(error, num_attempts, is_repeatable=is_repeatable, left_s=deadline.left_s)
        if delay_s is None:
            raise error
        self.observer.on_retry(kind, model, error)
        return delay_s


class Caller:
    """Carries requests out over one transport.

    Args:
        transport: the way to the server.
        settings: how.
        sleep: waits for some seconds.
    """

    def __init__(
        self, transport: Transport, settings: CallSettings, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self.transport = transport
        self.settings = settings
        self._sleep = sleep
        self._input_names: dict[str, frozenset[str]] = {}

    def generate(self, model: str, request: GenerateRequest, generation: Generation) -> Generator[Delta, None, None]:
        """Sends a request when iteration begins; yields what comes, and cancels the rest when it is closed.

        Raises:
            FolioError: it is refused or fails.
        """
        deadline = self.settings.deadline(request.options.get("timeout_s"))
        with observed(self.settings.observer, "generate", model, generation):
            inputs = self.input_names(model, deadline)
            generation.start()

            def begin(left_s: float) -> tuple[Generator[Outputs, None, None], Outputs]:
                with generation.attempt():
                    return _begun(self.transport.stream(request.call(model, inputs, left_s)))

            outputs, first = self.call("generate", model, begin, deadline, is_repeatable=request.is_repeatable)
            with closing(outputs):
                yield from generation.deltas(first)
                for further in outputs:
                    yield from generation.deltas(further)
                generation.end()

    def operate(self, model: str, operation: str, *, is_read: bool, is_batched: bool, timeout_s: float | None) -> str:
        """The JSON that an admin operation answers.

        Args:
            model: the model's name.
            operation: the operation as JSON.
            is_read: whether it changes nothing.
            is_batched: whether the model is one that answers once, with a batch dimension.
            timeout_s: None for the settings' own.

        Raises:
            FolioError: it is refused or fails.
        """
        deadline = self.settings.deadline(timeout_s)

        def attempt(left_s: float) -> str:
            if is_batched:
                answer = self.transport.infer(operation_tensors(model, operation, left_s))
                return str(answer["result"].item().decode())
            outputs, first = _begun(self.transport.stream(operation_call(model, operation, left_s)))
            # To its end: leaving would cancel an operation that is done, and cost HTTP its connection.
            with suppress(ConnectionFailed, DeadlineExceeded):  # the answer is here
                for _ in outputs:
                    pass
            return str(first["result"][0])

        with observed(self.settings.observer, "operation", model):
            check_supported({"op": operation}, self.input_names(model, deadline), model)
            return self.call("operation", model, attempt, deadline, is_repeatable=is_read)

    def step(
        self, model: str, call: Callable[[float], TensorCall], *, is_repeatable: bool, timeout_s: float | None
    ) -> Mapping[str, Tensor]:
        """The outputs of an attention step; raises `FolioError` where it is refused or fails."""
        deadline = self.settings.deadline(timeout_s)

        def attempt(left_s: float) -> Mapping[str, Tensor]:
            return self.transport.infer(call(left_s))

        with observed(self.settings.observer, "step", model):
            return self.call("step", model, attempt, deadline, is_repeatable=is_repeatable)

    def input_names(self, model: str, deadline: Deadline) -> frozenset[str]:
        """What a model takes; asked for once."""
        if model not in self._input_names:
            self._input_names[model] = self.call(
                "operation",
                model,
                lambda left_s: self.transport.input_names(model, left_s),
                deadline,
                is_repeatable=True,
            )
        return self._input_names[model]

    def call(
        self, kind: Kind, model: str, attempt: Callable[[float], Result], deadline: Deadline, *, is_repeatable: bool
    ) -> Result:
        """What `attempt` returns, given the seconds left, at the first time that it is not to be repeated."""
        num_attempts = 0
        while True:
            num_attempts += 1
            try:
                return attempt(deadline.left_s)
            except FolioError as error:
                delay_s = self.settings.delay_s(kind, model, error, num_attempts, deadline, is_repeatable=is_repeatable)
            self._sleep(delay_s)


def _begun(outputs: Generator[Outputs, None, None]) -> tuple[Generator[Outputs, None, None], Outputs]:
    """A stream with its first response, which tells a refusal from a beginning."""
    first = next(outputs, None)
    if first is None:
        raise IncompleteResponse("The server ended the answer before it began.")
    return outputs, first
