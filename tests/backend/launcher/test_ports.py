"""Free ports are found, taken ones are refused."""

from __future__ import annotations

import socket

import pytest

from folio_backend.errors import ConfigurationError
from folio_backend.launcher.ports import Ports, choose_ports

LOOPBACK = "127.0.0.1"


def test_zero_means_three_different_free_ports() -> None:
    ports = choose_ports(LOOPBACK, Ports(0, 0, 0))
    assert len({ports.http, ports.grpc, ports.metrics}) == 3
    assert choose_ports(LOOPBACK, ports) == ports, "they must be free still"


def test_taken_port_is_refused_with_what_to_do() -> None:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen()
        taken = listener.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"metrics port {taken}.*METRICS_PORT"):
            choose_ports(LOOPBACK, Ports(0, 0, taken))


def test_one_port_for_two_listeners_is_refused() -> None:
    port = choose_ports(LOOPBACK, Ports(0, 0, 0)).http
    with pytest.raises(ConfigurationError, match="GRPC_PORT"):
        choose_ports(LOOPBACK, Ports(port, port, 0))
