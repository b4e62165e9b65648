"""Chooses, tests and reserves the three ports. Does not know what listens on them."""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from folio_backend.errors import ConfigurationError

# Below the range that outgoing connections get: one of those could take a port while the model loads.
FREE_RANGE = range(20_000, 32_000)
ATTEMPTS = 100


@dataclass(frozen=True)
class Ports:
    """The ports of the server's three listeners."""

    http: int
    grpc: int
    metrics: int


@contextlib.contextmanager
def reserved_ports(address: str, requested: Ports) -> Iterator[Ports]:
    """`requested`, with each 0 replaced by a free port, which nobody else's 0 becomes before the block ends.

    Args:
        address: the numeric address to be bound.
        requested: ports, 0 for any.

    Raises:
        ConfigurationError: a port is taken, or the address is not one of this machine.
    """
    chosen = {}
    with contextlib.ExitStack() as reserved:
        with contextlib.ExitStack() as tried:
            # Those that are named come first: none of them may become another's 0.
            for name, port in sorted(vars(requested).items(), key=lambda item: item[1] == 0):
                holder = (tried if port else reserved).enter_context(socket.socket(_family(address)))
                try:
                    chosen[name] = _try(holder, address, port) if port else _reserve(holder, address)
                except OSError as error:
                    raise ConfigurationError(
                        f"The {name} port {port} cannot be opened on {address} ({error.strerror}): "
                        f"choose another with --{name}-port or {name.upper()}_PORT, 0 for any free one."
                    ) from error
        yield Ports(**chosen)


def _try(holder: socket.socket, address: str, port: int) -> int:
    """Has `holder` listen, so that nobody else can take the port until it is closed."""
    # As the server does: a port whose last connections are only winding down counts as free.
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind((address, port))
    holder.listen()
    return port


def _reserve(holder: socket.socket, address: str) -> int:
    """Binds a free port in such a way that the server can open it beside `holder`, while models may load for long."""
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(OSError):
            return _bind_any(holder, address)
    return _bind_any(holder, address)


def _bind_any(holder: socket.socket, address: str) -> int:
    port = FREE_RANGE[secrets.randbelow(len(FREE_RANGE))]
    holder.bind((address, port))  # alone: it fails beside whoever has the port, another launcher among them
    # From now on beside others who allow it too, as the server does.
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return port


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
