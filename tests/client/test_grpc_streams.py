"""How streams over gRPC end: as the server ends them, once it has answered; it keeps what is cancelled meanwhile."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import serialize_byte_tensor

from folio_client import ServerError
from tests.client.clients import opened_client

if TYPE_CHECKING:
    from collections.abc import Iterator

# How long the server's end of a stream comes behind its answer.
PAUSE_S = 0.3


class Service(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """A model that answers each request once: operations with a document, prompts with an error.

    Attributes:
        ends: whether the client was still there at the end of each stream.
    """

    def __init__(self) -> None:
        self.ends: list[bool] = []

    def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        """The model's inputs."""
        del request, context
        inputs = [
            service_pb2.ModelMetadataResponse.TensorMetadata(name=name) for name in ("text_input", "stream", "op")
        ]
        return service_pb2.ModelMetadataResponse(inputs=inputs)

    def ModelStreamInfer(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:  # noqa: N802 - as above
        """An answer, and the end a while later."""
        has_left = threading.Event()
        context.add_callback(has_left.set)
        (request,) = requests
        if request.inputs[0].name == "op":
            document = serialize_byte_tensor(np.array([b"{}"], dtype=object)).item()
            answer = service_pb2.ModelInferResponse(raw_output_contents=[document])
            answer.outputs.add(name="result", datatype="BYTES", shape=[1])
            yield service_pb2.ModelStreamInferResponse(infer_response=answer)
        else:
            yield service_pb2.ModelStreamInferResponse(error_message="The model has failed.")
        self.ends.append(not has_left.wait(PAUSE_S))


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def client(service: Service, style: str) -> Iterator[Any]:
    """A client of a server with that model."""
    with ThreadPoolExecutor(2) as executor:
        server = grpc.server(executor)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with opened_client(f"grpc://127.0.0.1:{port}", style) as opened:
            yield opened
        server.stop(None).wait()


def test_a_refusal_ends_as_the_server_ends_it(client: Any, service: Service) -> None:
    with pytest.raises(ServerError, match=r"The model has failed\."):
        client.generate("Hi")
    assert service.ends == [True]


def test_an_operation_ends_as_the_server_ends_it(client: Any, service: Service) -> None:
    assert client.admin.run("stats") == {}
    assert service.ends == [True]
