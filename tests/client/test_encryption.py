"""How a server is reached: encrypted, with the client's certificate and with headers that say who asks.

The server under test speaks plain text (encryption is a gateway's work), so a small one stands at the other end here.
"""

from __future__ import annotations

import http.server
import socket
import socketserver
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import trustme
from tritonclient.grpc import service_pb2, service_pb2_grpc

from folio_client import ConnectionFailed, RetryPolicy, TlsOptions
from tests.client.clients import PROTOCOLS, opened_client
from tests.client.local_servers import Quiet, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEADERS = {"x-api-key": "key", "authorization": "Bearer token", "x-team": "blue"}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Signs both sides' certificates."""
    return trustme.CA()


@pytest.fixture
def received() -> dict[str, str]:
    """The headers of the last request."""
    return {}


@pytest.fixture(params=PROTOCOLS)
def encrypted_url(authority: trustme.CA, received: dict[str, str], request: pytest.FixtureRequest) -> Iterator[str]:
    """A server that says that every model is ready, to clients with a certificate."""
    serve = grpc_server if request.param == "grpc" else http_server
    with serve(authority, received) as port:
        yield f"{request.param}s://localhost:{port}"


@contextmanager
def grpc_server(authority: trustme.CA, received: dict[str, str]) -> Iterator[int]:
    """Answers over gRPC; yields the port."""

    class Service(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
        def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
            del request
            received.update(context.invocation_metadata())
            return service_pb2.ModelReadyResponse(ready=True)

    certificate = authority.issue_cert("localhost")
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    credentials = grpc.ssl_server_credentials(
        [(certificate.private_key_pem.bytes(), chain)], authority.cert_pem.bytes(), require_client_auth=True
    )
    with ThreadPoolExecutor(1) as executor:
        server = grpc.server(executor)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Service(), server)
        port = server.add_secure_port("localhost:0", credentials)
        server.start()
        yield port
        server.stop(0).wait()


@contextmanager
def http_server(authority: trustme.CA, received: dict[str, str]) -> Iterator[int]:
    """Answers over HTTP; yields the port."""

    class Handler(Quiet, http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            received.update({name.lower(): value for name, value in self.headers.items()})
            self.send_response(200)
            self.end_headers()

    server = http.server.HTTPServer(("localhost", 0), Handler)
    server.socket = server_context(authority).wrap_socket(server.socket, server_side=True)
    with serving(server) as port:
        yield port


@contextmanager
def late_refusal(authority: trustme.CA) -> Iterator[int]:
    """Refuses clients without a certificate once they take the connection for made; yields the port.

    With TLS 1.3 the client's side of the handshake ends first. What it then sends is read here to the end: a close with
    bytes unread would take the refusal back, and which of the two a client meets would be chance.
    """
    context = server_context(authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_3

    class Refusal(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            encrypted = context.wrap_socket(self.request, server_side=True, do_handshake_on_connect=False)
            with suppress(ssl.SSLError):
                encrypted.do_handshake()
            with socket.socket(fileno=encrypted.detach()) as plain:
                while plain.recv(4096):
                    pass

    with serving(socketserver.TCPServer(("localhost", 0), Refusal)) as port:
        yield port


def server_context(authority: trustme.CA) -> ssl.SSLContext:
    """A server's side, which asks for the client's certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    authority.issue_cert("localhost").configure_cert(context)
    return context


def files(authority: trustme.CA, folder: Path) -> dict[str, Path]:
    """The authority's certificate, the client's and its key, as files."""
    mine = authority.issue_cert("client@example.org")
    blobs = {
        "ca_file": authority.cert_pem,
        "certificate_file": mine.cert_chain_pems[0],
        "key_file": mine.private_key_pem,
        "both": mine.private_key_and_cert_chain_pem,
    }
    for name, blob in blobs.items():
        blob.write_to_path(str(folder / name))
    return {name: folder / name for name in blobs}


def ask(url: str, style: str, tls: TlsOptions) -> bool:
    """Whether the server says that the model is ready."""
    who = {"api_key": "key", "bearer_token": "token", "headers": {"X-Team": "blue"}}
    with opened_client(url, style, tls=tls, retry=RetryPolicy(max_attempts=1), **who) as client:
        return bool(client.is_ready())


def test_both_sides_prove_who_they_are(
    encrypted_url: str, style: str, authority: trustme.CA, received: dict[str, str], tmp_path: Path
) -> None:
    paths = files(authority, tmp_path)
    apart = TlsOptions(paths["ca_file"], paths["certificate_file"], paths["key_file"])
    assert ask(encrypted_url, style, apart)
    assert received.items() >= HEADERS.items()
    assert ask(encrypted_url, style, TlsOptions(str(paths["ca_file"]), str(paths["both"])))


def test_without_proof_nothing_is_said(
    encrypted_url: str, style: str, authority: trustme.CA, received: dict[str, str], tmp_path: Path
) -> None:
    paths = files(authority, tmp_path)
    stranger = TlsOptions(certificate_file=paths["both"])  # an authority that this machine does not trust
    for tls in (stranger, TlsOptions(paths["ca_file"])):
        with pytest.raises(ConnectionFailed):
            ask(encrypted_url, style, tls)
    assert received == {}


def test_a_refusal_behind_the_handshake_is_told(style: str, authority: trustme.CA, tmp_path: Path) -> None:
    nameless = TlsOptions(files(authority, tmp_path)["ca_file"])
    with late_refusal(authority) as port, pytest.raises(ConnectionFailed, match=r"(?i)certificate.required"):
        ask(f"https://localhost:{port}", style, nameless)
