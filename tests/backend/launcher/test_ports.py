"""Free ports are found and kept for the server, taken ones are refused."""

from __future__ import annotations

import socket

import pytest

from folio_backend.errors import ConfigurationError
from folio_backend.launcher import ports
from folio_backend.launcher.ports import Ports, reserved_ports

LOOPBACK = "127.0.0.1"


def test_zero_means_three_different_free_ports() -> None:
    with reserved_ports(LOOPBACK, Ports(0, 0, 0)) as chosen:
        assert len({chosen.http, chosen.grpc, chosen.metrics}) == 3
        with reserved_ports(LOOPBACK, chosen) as again:
            assert again == chosen, "they must be free for the server"


def test_what_is_reserved_is_the_servers_and_nobody_elses_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    with reserved_ports(LOOPBACK, Ports(0, 0, 0)) as chosen:
        monkeypatch.setattr(ports, "FREE_RANGE", [chosen.grpc])
        with pytest.raises(ConfigurationError, match="port 0"), reserved_ports(LOOPBACK, Ports(0, 0, 0)):
            pass
        with socket.create_server((LOOPBACK, chosen.grpc)) as listener:  # reuses the address, as tritonserver does
            socket.create_connection(listener.getsockname()).close()


def test_taken_port_is_refused_with_what_to_do() -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        taken = listener.getsockname()[1]
        refusal = pytest.raises(ConfigurationError, match=rf"metrics port {taken}.*METRICS_PORT")
        with refusal, reserved_ports(LOOPBACK, Ports(0, 0, taken)):
            pass


def test_one_port_for_two_listeners_is_refused() -> None:
    with reserved_ports(LOOPBACK, Ports(0, 0, 0)) as chosen:
        port = chosen.http
    with pytest.raises(ConfigurationError, match="GRPC_PORT"), reserved_ports(LOOPBACK, Ports(port, port, 0)):
        pass
