"""A server that follows a script: transports for tests of what clients do with answers, without a wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

from folio_client import FolioError
from folio_client.wire import Outputs

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Mapping, Sequence

    from folio_client.types import Tensor
    from folio_client.wire import GenerateCall, TensorCall

INPUTS = frozenset(
    {
        "text_input",
        "messages",
        "op",
        "stream",
        "sampling_parameters",
        "return_finish_reason",
        "return_num_input_tokens",
        "return_num_output_tokens",
        "session_id",
        "session_length",
        "request_priority",
        "deadline_ms",
    }
)


def piece(text: str, finish_reason: str = "None", num_tokens: int = 1) -> Outputs:
    """A response of a generate model with a prompt of 10 tokens, 4 of them cached."""
    return {
        "text_output": (text,),
        "finish_reason": (finish_reason,),
        "num_input_tokens": (10,),
        "num_cached_tokens": (4,),
        "num_output_tokens": (num_tokens,),
    }


class ScriptedTransport:
    """Answers each generation with the next script: responses, and perhaps an error, in order.

    Args:
        scripts: one for each request; the last one is repeated.

    Attributes:
        calls: the requests that came.
        num_cancelled: requests that were closed before their end.
    """

    def __init__(self, *scripts: Sequence[Outputs | FolioError]) -> None:
        self._scripts = list(scripts)
        self.calls: list[GenerateCall] = []
        self.num_cancelled = 0

    def stream(self, call: GenerateCall) -> Generator[Outputs, None, None]:
        """See `Transport.stream`."""
        self.calls.append(call)
        try:
            for entry in self._next_script():
                if isinstance(entry, FolioError):
                    raise entry
                yield entry
        except GeneratorExit:
            self.num_cancelled += 1
            raise

    def infer(self, call: TensorCall) -> Mapping[str, Tensor]:
        """See `Transport.infer`."""
        raise NotImplementedError

    def is_ready(self, model: str, timeout_s: float) -> bool:
        """See `Transport.is_ready`."""
        del model, timeout_s
        return True

    def input_names(self, model: str, timeout_s: float) -> frozenset[str]:
        """See `Transport.input_names`."""
        del model, timeout_s
        return INPUTS

    def close(self) -> None:
        """Nothing is open."""

    def _next_script(self) -> Sequence[Outputs | FolioError]:
        return self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]


class AsyncScriptedTransport:
    """The same for the asynchronous client.

    Args:
        transport: the script.
    """

    def __init__(self, transport: ScriptedTransport) -> None:
        self._transport = transport

    async def stream(self, call: GenerateCall) -> AsyncGenerator[Outputs, None]:
        """See `AsyncTransport.stream`."""
        outputs = self._transport.stream(call)
        try:
            for entry in outputs:
                yield entry
        finally:
            outputs.close()

    async def infer(self, call: TensorCall) -> Mapping[str, Tensor]:
        """See `AsyncTransport.infer`."""
        return self._transport.infer(call)

    async def is_ready(self, model: str, timeout_s: float) -> bool:
        """See `AsyncTransport.is_ready`."""
        return self._transport.is_ready(model, timeout_s)

    async def input_names(self, model: str, timeout_s: float) -> frozenset[str]:
        """See `AsyncTransport.input_names`."""
        return self._transport.input_names(model, timeout_s)

    async def close(self) -> None:
        """Nothing is open."""
