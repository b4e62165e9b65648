"""Requests over a gRPC stream, response by response.

Knows tensors and the form of Folio's errors; nothing of what the fields mean.
"""

from __future__ import annotations

import json
import queue
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import tritonclient.grpc

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from tritonclient.utils import InferenceServerException
    from typing_extensions import Self

Value: TypeAlias = "str | bool | int"

MODEL = "smollm2"
# Ends a test that waits in vain; nothing that works comes near it.
LIMIT_S = 120.0

_TENSOR_TYPES = {bool: ("BOOL", np.bool_), int: ("INT32", np.int32), str: ("BYTES", np.object_)}


class Refused(Exception):
    """An error as the server words it.

    Its code is not among it: over HTTP every error is 400, and a gRPC stream that is asked for codes (header
    `triton_grpc_error`) brings this server down within some hundred of them.

    Args:
        text: a sentence, then perhaps details as JSON.

    Attributes:
        details: `field`, `allowed` and `retry_after_ms`, as far as they are given.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
        _, _, document = text.partition(" {")
        self.details: dict[str, Any] = json.loads("{" + document) if document else {}


@dataclass(frozen=True)
class Response:
    """One response of a gRPC stream.

    Attributes:
        request_id: what the client called the request.
        outputs: tensors by name.
        data_types: the server's names of their types.
        is_final: whether nothing follows.
    """

    request_id: str
    outputs: Mapping[str, np.ndarray[Any, Any]]
    data_types: Mapping[str, str]
    is_final: bool

    def texts(self, name: str = "text_output") -> list[str]:
        """A STRING output, one string per choice; raises UnicodeDecodeError where a character is cut."""
        return [value.decode("utf-8") for value in self.outputs[name]]

    @property
    def text(self) -> str:
        """The text of the only choice."""
        (text,) = self.texts()
        return text


class Stream:
    """A request over a gRPC stream of its own; its iteration ends with the final response.

    Args:
        address: `host:port`.
        fields: tensors of one element by name.
        options: arguments of tritonclient's `async_stream_infer`: `request_id`, `sequence_id`, `parameters`.
        timeout_s: after which the client gives up.
    """

    def __init__(
        self, address: str, fields: Mapping[str, Value], options: Mapping[str, Any], timeout_s: float | None = None
    ) -> None:
        self._client = tritonclient.grpc.InferenceServerClient(address)
        self._received: queue.SimpleQueue[tuple[Any, InferenceServerException | None]] = queue.SimpleQueue()
        self._client.start_stream(
            callback=lambda result, error: self._received.put((result, error)),
            stream_timeout=timeout_s,
        )
        self.send(fields, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()
        self._client.close()

    def __iter__(self) -> Iterator[Response]:
        while True:
            response = self.next_response()
            yield response
            if response.is_final:
                return

    def send(self, fields: Mapping[str, Value], **options: Any) -> None:
        """Sends a further request; their responses arrive mixed."""
        tensors = [tensor(name, value) for name, value in fields.items()]
        self._client.async_stream_infer(MODEL, tensors, enable_empty_final_response=True, **options)

    def next_response(self) -> Response:
        """Waits for the next response.

        Raises:
            Refused: the request has failed.
        """
        result, error = self._received.get(timeout=LIMIT_S)
        if error is not None:
            raise Refused(error.message())
        return _response(result)

    def cancel(self) -> None:
        """Cancels the request if it still runs."""
        self._client.stop_stream(cancel_requests=True)


def tensor(name: str, value: Value) -> tritonclient.grpc.InferInput:
    """A tensor of one element."""
    data_type, dtype = _TENSOR_TYPES[type(value)]
    described = tritonclient.grpc.InferInput(name, [1], data_type)
    content = value.encode() if isinstance(value, str) else value
    return described.set_data_from_numpy(np.array([content], dtype=dtype))


def _response(result: Any) -> Response:
    message = result.get_response()
    data_types = {output.name: output.datatype for output in message.outputs}
    outputs = {name: result.as_numpy(name) for name in data_types}
    return Response(message.id, outputs, data_types, message.parameters["triton_final_response"].bool_param)
