"""`make sweep`: from a command line to measured levels, files and a table.

Speaks on standard error while it measures; the comparison and the files' names go to standard output.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console

from folio_client import FolioError
from folio_sweep.analyzer import PerfAnalyzer, find_perf_analyzer
from folio_sweep.errors import SweepError
from folio_sweep.options import Options, parse_options
from folio_sweep.plan import num_levels
from folio_sweep.plots import write_plots
from folio_sweep.results import comparison_table, summary, write_results
from folio_sweep.series import Point
from folio_sweep.sweep import Sweep

INTERRUPTED = 130


def main() -> None:
    """The command: exit status 0 when every level was measured, 1 when one or all failed, 130 after Ctrl-C."""
    # An end like Ctrl-C's: what is measured is written, and no perf_analyzer and no server stay behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Does what the command line says and returns the exit status; what was measured is written in any case."""
    options = parse_options(arguments)
    points: list[Point] = []
    try:
        analyzer = find_perf_analyzer(os.environ, _say)
        _say(f"measuring with perf_analyzer {analyzer.version}, {analyzer.binary}")
        options.out.mkdir(parents=True, exist_ok=True)
    except (SweepError, OSError) as error:
        _say(str(error))
        return 1
    try:
        for point in _shown(Sweep(options, analyzer, _say).points(), num_levels(options)):
            points.append(point)  # noqa: PERF402 - what is there is written when the rest fails
        status = int(any(point.measurement is None for point in points))
    except (SweepError, FolioError) as error:
        _say(f"The sweep ended early: {error}")
        status = 1
    except KeyboardInterrupt:
        _say("Interrupted: writing what is measured.")
        status = INTERRUPTED
    _write(options, analyzer, points)
    return status


def _shown(points: Iterator[Point], num_points: int) -> Iterator[Point]:
    start_s = time.monotonic()
    for number, point in enumerate(points, 1):
        _say(f"{number:3} of {num_points}, {time.monotonic() - start_s:.0f} s: {summary(point)}")
        yield point


def _write(options: Options, analyzer: PerfAnalyzer, points: Sequence[Point]) -> None:
    write_results(options.out, points, _about(options, analyzer))
    plots = write_plots(options.out, points)
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(comparison_table(points))
    for file in (options.out / "results.csv", options.out / "results.json", *plots):
        console.print(str(file), highlight=False, soft_wrap=True)


def _about(options: Options, analyzer: PerfAnalyzer) -> dict[str, Any]:
    """How the results came about, for whoever reads the file later."""
    asked = {name: str(value) if hasattr(value, "parts") else value for name, value in asdict(options).items()}
    return {"perf_analyzer": analyzer.version, "num_processors": os.cpu_count(), "options": asked}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
