"""A server for one load test, as `folio-server` starts it. Knows its command line and the lines it prints."""

from __future__ import annotations

import subprocess
import sys
from types import TracebackType
from typing import TYPE_CHECKING

from folio_loadtests.errors import RunError

if TYPE_CHECKING:
    from typing_extensions import Self

# By its name: the load tests share no code with the backend. It steps back for the generator, which needs little of the
# cores that both share, but needs it on time.
COMMAND = ("nice", "-n10", sys.executable, "-m", "folio_backend.launcher.main", "--stop-with-stdin")
FREE_PORTS = ("--http-port=0", "--grpc-port=0", "--metrics-port=0")


class OwnServer:
    """A server on free ports, ready inside a `with` block and gone after it. Settings come from the environment.

    Attributes:
        grpc_url: where it is.
        metrics_address: `host:port` of its metrics.
    """

    def __init__(self) -> None:
        self.grpc_url = self.metrics_address = ""

    def __enter__(self) -> Self:
        # In a session of its own, so that Ctrl-C ends the load first; then its standard input ends, and with it the
        # server.
        self._process = subprocess.Popen(
            [*COMMAND, *FREE_PORTS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        try:
            self._read_addresses()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _read_addresses(self) -> None:
        assert self._process.stdout is not None
        lines = [self._process.stdout.readline().decode().split() for _ in range(3)]
        urls = {line[0]: line[1] for line in lines if len(line) == 2}
        if not {"gRPC", "metrics"} <= urls.keys():
            raise RunError("The server did not start; name another with --host.")
        # The launcher gives URLs of HTTP for all three.
        self.grpc_url = f"grpc://{urls['gRPC'].split('/')[2]}"
        self.metrics_address = urls["metrics"].split("/")[2]

    def _stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
