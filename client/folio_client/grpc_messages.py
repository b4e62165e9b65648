"""From values to the messages of Triton's gRPC protocol and back, and from gRPC's errors to ours.

Pure functions, shared by the synchronous and the asynchronous transport. Requests are built and answers are read with
tritonclient's own message types and byte formats.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import InferResult, service_pb2
from tritonclient.utils import np_to_triton_dtype, serialize_byte_tensor

from folio_client.connection import Connection
from folio_client.error_text import deadline_exceeded, server_error
from folio_client.errors import FolioError
from folio_client.types import Tensor
from folio_client.wire import GenerateCall, Outputs, TensorCall

CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A connection of each client's own: gRPC would give all clients of a process the same.
    ("grpc.use_local_subchannel_pool", 1),
    # A server that was away is found again within a second; gRPC would wait up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
_SCALAR_DTYPES = {bool: np.bool_, int: np.int32, str: np.object_}


def generate_message(call: GenerateCall) -> Any:
    """The message for a request to a generate model."""
    tensors = {name: _scalar_tensor(value) for name, value in call.fields.items()}
    return _message(call.model, tensors, call.request_id)


def tensor_message(call: TensorCall) -> Any:
    """The message for a request to a model that answers once."""
    return _message(call.model, call.tensors, "")


def stream_outputs(response: Any) -> Outputs:
    """What a response of a stream holds; raises `FolioError` where it is an error."""
    if response.error_message:
        raise server_error(response.error_message)
    return {name: tuple(map(_scalar, tensor.reshape(-1).tolist())) for name, tensor in tensors(response.infer_response)}


def tensors(response: Any) -> Iterator[tuple[str, Tensor]]:
    """A response's outputs by name."""
    result = InferResult(response)
    return ((output.name, result.as_numpy(output.name)) for output in response.outputs)


@contextmanager
def translated_errors(timeout_s: float) -> Iterator[None]:
    """Turns the errors of a call into ours."""
    try:
        yield
    except grpc.RpcError as error:
        raise _rpc_error(error, timeout_s) from error


def credentials(connection: Connection) -> Any:
    """What gRPC needs to encrypt."""
    return grpc.ssl_channel_credentials(*connection.tls.contents())


def _rpc_error(error: Any, timeout_s: float) -> FolioError:
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return deadline_exceeded(timeout_s)
    return server_error(error.details() or f"gRPC status {error.code().name}", error.code().name)


def _message(model: str, inputs: Mapping[str, Tensor], request_id: str) -> Any:
    message = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    for name, tensor in inputs.items():
        message.inputs.add(name=name, datatype=np_to_triton_dtype(tensor.dtype), shape=tensor.shape)
        message.raw_input_contents.append(_raw(tensor))
    return message


def _raw(tensor: Tensor) -> bytes:
    if tensor.dtype == np.object_:
        content = serialize_byte_tensor(tensor).item()
        assert isinstance(content, bytes)
        return content
    return tensor.tobytes()


def _scalar_tensor(value: str | bool | int) -> Tensor:
    content = value.encode() if isinstance(value, str) else value
    return np.array([content], dtype=_SCALAR_DTYPES[type(value)])


def _scalar(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
