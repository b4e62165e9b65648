"""`grpc_transport` for asyncio; see there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

import grpc.aio
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


class AsyncGrpcTransport:
    """An `AsyncTransport` over gRPC.

    Args:
        connection: where the server is.
    """

    def __init__(self, connection: Connection) -> None:
        if connection.is_encrypted:
            self._channel = grpc.aio.secure_channel(connection.address, credentials(connection), CHANNEL_OPTIONS)
        else:
            self._channel = grpc.aio.insecure_channel(connection.address, CHANNEL_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._metadata = tuple(connection.headers.items())

    async def stream(self, call: GenerateCall) -> AsyncGenerator[Outputs, None]:
        """See `Transport.stream`."""
        message = generate_message(call)
        with translated_errors(call.timeout_s):
            responses = self._stub.ModelStreamInfer(_once(message), timeout=call.timeout_s, metadata=self._metadata)
            try:
                async for response in responses:
                    if response.error_message:
                        await _let_end(responses)
                    yield stream_outputs(response)
            finally:
                responses.cancel()

    async def infer(self, call: TensorCall) -> Mapping[str, Tensor]:
        """See `Transport.infer`."""
        with translated_errors(call.timeout_s):
            response = await self._stub.ModelInfer(
                tensor_message(call), timeout=call.timeout_s, metadata=self._metadata
            )
        return dict(tensors(response))

    async def is_ready(self, model: str, timeout_s: float) -> bool:
        """See `Transport.is_ready`."""
        request = service_pb2.ModelReadyRequest(name=model)
        with translated_errors(timeout_s):
            response = await self._stub.ModelReady(request, timeout=timeout_s, metadata=self._metadata)
        return bool(response.ready)

    async def input_names(self, model: str, timeout_s: float) -> frozenset[str]:
        """See `Transport.input_names`."""
        request = service_pb2.ModelMetadataRequest(name=model)
        with translated_errors(timeout_s):
            metadata = await self._stub.ModelMetadata(request, timeout=timeout_s, metadata=self._metadata)
        return frozenset(tensor.name for tensor in metadata.inputs)

    async def close(self) -> None:
        """See `Transport.close`."""
        await self._channel.close()


async def _let_end(responses: AsyncIterable[Any]) -> None:
    """See `grpc_transport`."""
    with suppress(grpc.RpcError):
        async for _ in responses:
            pass


async def _once(message: Any) -> AsyncIterator[Any]:
    yield message
