"""`folio-load`: a load test without a web page, against a server that it starts, or the one that `--host` names.

Everything it is told goes on to Locust, whose own options work too; `locust -f` on `locustfile.py` is the same without
the server. Exit statuses: 0 passed, 1 the test could not be made, 2 an objective was missed, 3 wrong output, 4 invalid,
because the generator itself could not keep up.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from folio_loadtests.arguments import DEFAULT_USERS, add_arguments
from folio_loadtests.errors import RunError
from folio_loadtests.server import OwnServer
from folio_loadtests.verdict import Status

LOCUSTFILE = Path(__file__).parent / "locustfile.py"
LOCUST = (sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary", "--loglevel=WARNING")


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Runs the load test that the command line describes; returns the exit status."""
    given, _ = _parser().parse_known_args(arguments)
    report = Path(given.report, "report.json")
    command = [*LOCUST, f"--json-file={report.with_name('locust.json')}", *arguments]
    try:
        if given.host is not None:
            return _load(command, report)
        with OwnServer() as server:
            return _load([*command, f"--host={server.grpc_url}", f"--metrics={server.metrics_address}"], report)
    except RunError as error:
        sys.stderr.write(f"{error}\n")
        return Status.NOT_RUN


def _load(command: Sequence[str], report: Path) -> int:
    """Runs Locust to its end, to which it also comes at Ctrl-C; returns its status, 1 where it wrote no report."""
    before = _written(report)
    process = subprocess.Popen(command)
    while True:
        try:
            status = process.wait()
            break
        except KeyboardInterrupt:
            continue  # Locust was told as well, and still writes its report
    return status if _written(report) != before else Status.NOT_RUN


def _written(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="folio-load",
        description="A load test of a Folio server, with a warm-up of its own, checked answers, and a report.",
        epilog="Further options are Locust's. Exit statuses: 0 passed, 1 the test could not be made, 2 an objective "
        "was missed, 3 wrong output, 4 invalid: the generator itself could not keep up.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--host", metavar="URL", help="grpc://host:port or http://host:port (default: start a server)")
    add("--users", "-u", type=int, metavar="N", help=f"most users at a time (default: {DEFAULT_USERS})")
    add("--run-time", "-t", metavar="T", help="of the measurement, as 30s or 5m (default: 60s, soak: 1h)")
    add("--processes", type=int, metavar="N", help="generate load in so many processes")
    add_arguments(parser)
    return parser


if __name__ == "__main__":
    main()
