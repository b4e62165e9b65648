"""What a client asks of a transport, and what it gets: plain values, the same over HTTP and gRPC.

A transport moves requests and answers, and raises nothing but `FolioError`. It does not retry, and does not know what
fields mean. A transport of one's own, as tests have it, needs no more than these methods.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from folio_client.types import Tensor

Scalar: TypeAlias = "str | bool | int | float"
Outputs: TypeAlias = Mapping[str, tuple[Scalar, ...]]
"""One response of a generate model: an entry per choice, or one."""


@dataclass(frozen=True)
class GenerateCall:
    """A request to a generate model.

    Attributes:
        model: the model's name.
        fields: inputs of one element each; integers fit INT32.
        request_id: its name at the server; may be empty.
        timeout_s: seconds until it is given up.
    """

    model: str
    fields: Mapping[str, str | bool | int] = field(repr=False)
    request_id: str
    timeout_s: float


@dataclass(frozen=True)
class TensorCall:
    """A request to a model that answers once, with tensors.

    Attributes:
        model: the model's name.
        tensors: inputs by name, batch dimension first; STRING as an object array of bytes.
        timeout_s: seconds until it is given up.
    """

    model: str
    tensors: Mapping[str, Tensor] = field(repr=False)
    timeout_s: float


class Transport(Protocol):
    """The way to one server; safe to use from several threads."""

    def stream(self, call: GenerateCall) -> Generator[Outputs, None, None]:
        """Sends a request when iteration begins and yields its responses; closing it cancels the request."""
        ...

    def infer(self, call: TensorCall) -> Mapping[str, Tensor]:
        """The outputs of a request that is answered once."""
        ...

    def is_ready(self, model: str, timeout_s: float) -> bool:
        """Whether the server has the model loaded; False also where there is no such model."""
        ...

    def input_names(self, model: str, timeout_s: float) -> frozenset[str]:
        """The names of a model's inputs."""
        ...

    def close(self) -> None:
        """Lets the connections go."""
        ...


class AsyncTransport(Protocol):
    """The way to one server, from one event loop; see `Transport` for the methods."""

    def stream(self, call: GenerateCall) -> AsyncGenerator[Outputs, None]:
        """See `Transport.stream`."""
        ...

    async def infer(self, call: TensorCall) -> Mapping[str, Tensor]:
        """See `Transport.infer`."""
        ...

    async def is_ready(self, model: str, timeout_s: float) -> bool:
        """See `Transport.is_ready`."""
        ...

    async def input_names(self, model: str, timeout_s: float) -> frozenset[str]:
        """See `Transport.input_names`."""
        ...

    async def close(self) -> None:
        """See `Transport.close`."""
        ...
