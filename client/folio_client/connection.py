"""Where a server is and how to reach it: the address, encryption, and the headers that say who asks.

Knows no protocol beyond the names of the URL schemes.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypedDict
from urllib.parse import urlsplit

from folio_client.errors import InvalidArgument

DEFAULT_URL = "grpc://localhost:8001"
API_KEY_HEADER = "x-api-key"
# A gRPC stream that asks for error codes this way crashes the server after some hundred refusals.
_FATAL_HEADER = "triton_grpc_error"
_SCHEMES: Mapping[str, tuple[Literal["grpc", "http"], bool, int]] = {
    "grpc": ("grpc", False, 8001),
    "grpcs": ("grpc", True, 443),
    "http": ("http", False, 8000),
    "https": ("http", True, 443),
}


@dataclass(frozen=True)
class TlsOptions:
    """Files for encrypted connections, each in PEM form.

    Attributes:
        ca_file: who may have signed the server's certificate; None for the authorities that this machine trusts.
        certificate_file: the client's own certificate chain, where the server asks for one.
        key_file: that certificate's key; None where `certificate_file` holds it too.

    Raises:
        InvalidArgument: a key without a certificate; for the methods, a file that cannot be read.
    """

    ca_file: Path | str | None = None
    certificate_file: Path | str | None = None
    key_file: Path | str | None = None

    def __post_init__(self) -> None:
        if self.key_file is not None and self.certificate_file is None:
            raise InvalidArgument(
                "A key without its certificate.", field="tls", allowed="key_file and certificate_file"
            )

    def ssl_context(self) -> ssl.SSLContext:
        """The same for Python's own sockets."""
        with _readable_files():
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.certificate_file is not None:
                context.load_cert_chain(self.certificate_file, self.key_file)
        return context

    def contents(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """What the files hold, in the order of authorities, key and certificate."""
        files = (self.ca_file, self.key_file or self.certificate_file, self.certificate_file)
        with _readable_files():
            authorities, key, certificate = (None if file is None else Path(file).read_bytes() for file in files)
        return authorities, key, certificate


class ConnectionOptions(TypedDict, total=False):
    """How to reach a server, besides its address.

    api_key: sent as `x-api-key`.
    bearer_token: sent as `authorization: Bearer ...`.
    headers: further headers.
    tls: for `https://` and `grpcs://`, where the defaults do not fit.
    max_connections: most connections at a time over HTTP; gRPC has one, which all requests share.
    """

    api_key: str
    bearer_token: str
    headers: Mapping[str, str]
    tls: TlsOptions
    max_connections: int


@dataclass(frozen=True)
class Connection:
    """A server to talk to; see `ConnectionOptions`.

    Attributes:
        protocol: "grpc" or "http".
        address: `host:port`.
        is_encrypted: whether to use TLS.
        headers: sent with every request, names in lower case.
    """

    protocol: Literal["grpc", "http"]
    address: str
    is_encrypted: bool
    headers: Mapping[str, str] = field(repr=False)
    tls: TlsOptions
    max_connections: int

    @classmethod
    def parse(cls, url: str, options: ConnectionOptions) -> Connection:
        """The connection that a URL and options describe.

        Args:
            url: `grpc://`, `grpcs://`, `http://` or `https://`, then `host` or `host:port`.
            options: see `ConnectionOptions`.

        Raises:
            InvalidArgument: not such a URL, or a header that must not be sent.
        """
        allowed = "grpc://, grpcs://, http:// or https://, then host:port"
        parts = urlsplit(url if "://" in url else f"//{url}")
        if parts.scheme not in _SCHEMES or not parts.hostname:
            raise InvalidArgument(f"The URL's scheme is {parts.scheme or 'missing'}.", field="url", allowed=allowed)
        if parts.path not in {"", "/"} or parts.query or parts.username:
            raise InvalidArgument("The URL says more than host and port.", field="url", allowed=allowed)
        protocol, is_encrypted, default_port = _SCHEMES[parts.scheme]
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return cls(
            protocol=protocol,
            address=f"{host}:{_port(url) or default_port}",
            is_encrypted=is_encrypted,
            headers=_headers(options),
            tls=options.get("tls", TlsOptions()),
            max_connections=options.get("max_connections", 100),
        )


@contextmanager
def _readable_files() -> Iterator[None]:
    try:
        yield
    except OSError as error:  # the ssl module's errors are such too
        sentence = f"A file for TLS cannot be used: {error.strerror or type(error).__name__}."
        raise InvalidArgument(sentence, field="tls", allowed="files in PEM form") from error


def _port(url: str) -> int | None:
    try:
        return urlsplit(url).port
    except ValueError:
        raise InvalidArgument("The URL's port is no port.", field="url", allowed="host:port, 1 to 65535") from None


def _headers(options: ConnectionOptions) -> dict[str, str]:
    headers = {name.lower(): value for name, value in options.get("headers", {}).items()}
    if _FATAL_HEADER in headers:
        sentence = f"The header {_FATAL_HEADER} would crash the server."
        raise InvalidArgument(sentence, field="headers", allowed="any other header")
    if "api_key" in options:
        headers[API_KEY_HEADER] = options["api_key"]
    if "bearer_token" in options:
        headers["authorization"] = f"Bearer {options['bearer_token']}"
    return headers
