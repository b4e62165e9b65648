"""The way to a server over gRPC: one connection, which all requests share, and a stream for each generation.

Uses the stubs that tritonclient generates and not its `InferenceServerClient`, which allows one stream at a time and
gives each a thread and a queue: here whoever asks reads the stream. It is safe from threads and, with
`grpc.experimental.gevent.init_gevent()`, from greenlets.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import suppress
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from folio_client.connection import Connection
from folio_client.grpc_messages import (
    CHANNEL_OPTIONS,
    credentials,
    generate_message,
    stream_outputs,
    tensor_message,
    tensors,
    translated_errors,
)
from folio_client.types import Tensor
from folio_client.wire import GenerateCall, Outputs, TensorCall


class GrpcTransport:
    """A `Transport` over gRPC.

    Args:
        connection: where the server is.
    """

    def __init__(self, connection: Connection) -> None:
        if connection.is_encrypted:
            self._channel = grpc.secure_channel(connection.address, credentials(connection), CHANNEL_OPTIONS)
        else:
            self._channel = grpc.insecure_channel(connection.address, CHANNEL_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._metadata = tuple(connection.headers.items())

    def stream(self, call: GenerateCall) -> Generator[Outputs, None, None]:
        """See `Transport.stream`."""
        message = generate_message(call)
        with translated_errors(call.timeout_s):
            responses = self._stub.ModelStreamInfer(iter((message,)), timeout=call.timeout_s, metadata=self._metadata)
            try:
                for response in responses:
                    if response.error_message:
                        _let_end(responses)
                    yield stream_outputs(response)
            finally:
                responses.cancel()

    def infer(self, call: TensorCall) -> Mapping[str, Tensor]:
        """See `Transport.infer`."""
        with translated_errors(call.timeout_s):
            response = self._stub.ModelInfer(tensor_message(call), timeout=call.timeout_s, metadata=self._metadata)
        return dict(tensors(response))

    def is_ready(self, model: str, timeout_s: float) -> bool:
        """See `Transport.is_ready`."""
        request = service_pb2.ModelReadyRequest(name=model)
        with translated_errors(timeout_s):
            return bool(self._stub.ModelReady(request, timeout=timeout_s, metadata=self._metadata).ready)

    def input_names(self, model: str, timeout_s: float) -> frozenset[str]:
        """See `Transport.input_names`."""
        request = service_pb2.ModelMetadataRequest(name=model)
        with translated_errors(timeout_s):
            metadata = self._stub.ModelMetadata(request, timeout=timeout_s, metadata=self._metadata)
        return frozenset(tensor.name for tensor in metadata.inputs)

    def close(self) -> None:
        """See `Transport.close`."""
        self._channel.close()


def _let_end(responses: Iterable[Any]) -> None:
    """Reads what follows an error: the server (2.51) never forgets a stream that is cancelled while it ends."""
    with suppress(grpc.RpcError):  # the error that the server has told is the one to raise
        for _ in responses:
            pass
