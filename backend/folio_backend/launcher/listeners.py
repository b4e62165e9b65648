"""What the launcher learns from the server over its own ports. Does not know the process behind them."""

from __future__ import annotations

import http.client
from dataclasses import dataclass

from folio_backend.launcher.ports import Ports

# An address that means "all of them" is itself not one to connect to.
CONNECTABLE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
# The backend's count of what runs, without which nothing is known, and what else waits.
RUNNING = "folio_requests_running"
IN_PROGRESS = (RUNNING, "folio_requests_waiting", "nv_inference_pending_request_count")


@dataclass(frozen=True)
class Listeners:
    """The server's three listeners.

    Attributes:
        address: the numeric address they are bound to.
        ports: their ports.
        has_metrics: whether the metrics port is opened at all.
    """

    address: str
    ports: Ports
    has_metrics: bool = True

    def is_ready(self) -> bool:
        """Whether the server answers that all its models can be used, and on its metrics port, which opens last."""
        if self._get(self.ports.http, "/v2/health/ready") is None:
            return False
        return not self.has_metrics or self._get(self.ports.metrics, "/metrics") is not None

    def num_requests(self) -> int | None:
        """How many requests run or wait, None where the server does not tell."""
        metrics = self._get(self.ports.metrics, "/metrics")
        samples = [line.rsplit(" ", 1) for line in (metrics or "").splitlines() if line.startswith(IN_PROGRESS)]
        if not any(name.startswith(RUNNING) for name, _ in samples):
            return None
        return sum(int(float(value)) for _, value in samples)

    def urls(self) -> dict[str, str]:
        """What a client connects to, by protocol."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return {
            "HTTP": f"http://{host}:{self.ports.http}",
            "gRPC": f"grpc://{host}:{self.ports.grpc}",
            "metrics": f"http://{host}:{self.ports.metrics}/metrics",
        }

    def _get(self, port: int, path: str) -> str | None:
        """The body of an answer 200, None for any other answer or none."""
        connection = http.client.HTTPConnection(CONNECTABLE.get(self.address, self.address), port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.read().decode() if response.status == http.client.OK else None
        except (OSError, http.client.HTTPException):
            return None  # ports open late, after the models are loaded, and close early
        finally:
            connection.close()
