"""Chooses and tests the three ports. Does not know what listens on them."""

from __future__ import annotations

import contextlib
import secrets
import socket
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


def choose_ports(address: str, requested: Ports) -> Ports:
    """`requested`, with each 0 replaced by a port that is free now.

    Args:
        address: the numeric address to be bound.
        requested: ports, 0 for any.

    Raises:
        ConfigurationError: a port is taken, or the address is not one of this machine.
    """
    chosen = {}
    with contextlib.ExitStack() as bound:
        for name, port in vars(requested).items():
            listener = bound.enter_context(socket.socket(_family(address)))
            chosen[name] = _bind(listener, address, port, name)
    return Ports(**chosen)


def _bind(listener: socket.socket, address: str, port: int, name: str) -> int:
    """Has `listener` listen and returns its port, which nobody else can take until it is closed."""
    # As the server does: a port whose last connections are only winding down counts as free.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    candidates = [port] if port else [FREE_RANGE[secrets.randbelow(len(FREE_RANGE))] for _ in range(ATTEMPTS)]
    for candidate in candidates:
        try:
            listener.bind((address, candidate))
            listener.listen()
        except OSError as error:
            failure = error
        else:
            return candidate
    raise ConfigurationError(
        f"The {name} port {port} cannot be opened on {address} ({failure.strerror}): "
        f"choose another with --{name}-port or {name.upper()}_PORT, 0 for any free one."
    )


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
