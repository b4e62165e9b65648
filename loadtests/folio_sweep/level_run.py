"""Runs perf_analyzer for one load level, from input data to its profile export.

Knows its command line. One process measures one level, so that every row of the input data is sent exactly once:
perf_analyzer's thread t of n sends the rows t, t + n, t + 2n, ..., one after the other, and there are as many rows as
requests. Does not know what the rows mean.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from folio_sweep.analyzer import PerfAnalyzer
from folio_sweep.errors import LevelFailed
from folio_sweep.profile_export import Request, read_export
from folio_sweep.series import Level
from folio_sweep.target import Target

Row = Mapping[str, Any]
# perf_analyzer writes a warning for every tensor that it cannot export, and its manual after every wrong option.
NOISE = ("WARNING: data type", "Usage:", "====")
MAX_REASON_CHARACTERS = 300


def run_level(
    analyzer: PerfAnalyzer,
    target: Target,
    level: Level,
    rows: Sequence[Row],
    folder: Path,
    *,
    limit_s: float,
) -> tuple[Request, ...]:
    """Measures one level.

    Args:
        analyzer: the program.
        target: the model to measure.
        level: the load.
        rows: an input of each request, as perf_analyzer's input data has them.
        folder: a new folder for input data, export and log.
        limit_s: when to give up.

    Raises:
        LevelFailed: a request failed, or perf_analyzer did; the text says why.
    """
    folder.mkdir(parents=True)
    data, export, log = folder / "input.json", folder / "export.json", folder / "perf_analyzer.log"
    data.write_text(json.dumps({"data": rows}))
    command = [*_command(analyzer, target, level), f"--input-data={data}", f"--profile-export-file={export}"]
    status = _run(command, analyzer, log, limit_s)
    if status is None:
        raise LevelFailed(f"perf_analyzer was not done after {limit_s:.0f} s.")
    if status:
        raise LevelFailed(reason(log) or f"perf_analyzer ended with {status}.")
    requests = read_export(export)
    check_sent_once(requests, rows)
    return requests


def check_sent_once(requests: Sequence[Request], rows: Sequence[Row]) -> None:
    """Checks that the export is of these rows, each sent once: a repeated step would measure something else.

    Raises:
        LevelFailed: it is not.
    """
    expected = sorted((row["session_id"][0], *row.get("position", [-1])) for row in rows)
    sent = sorted(
        (request.session_id or "", -1 if request.position is None else request.position) for request in requests
    )
    if sent != expected:
        raise LevelFailed(
            f"perf_analyzer sent {len(sent)} requests, not each of the {len(expected)} rows of its input data once."
        )


def reason(log: Path) -> str:
    """The sentence in which perf_analyzer says what went wrong; empty where it says nothing."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    said = [line for line in lines if line and not line.startswith(NOISE)]
    errors = [line for line in said if "error" in line.lower()]
    return (errors or said[-1:] or [""])[0][:MAX_REASON_CHARACTERS]


def _command(analyzer: PerfAnalyzer, target: Target, level: Level) -> list[str]:
    common = [
        "-m",
        target.model,
        "-u",
        target.address,
        "-i",
        "grpc",
        "--async",
        f"--request-count={level.num_requests}",
    ]
    if target.task == "generate":
        common.append("--streaming")
    if level.mode == "concurrency":
        load = [f"--concurrency-range={level.value:.0f}", f"--max-threads={level.value:.0f}"]
    else:
        # One thread sends the rows in their order and never waits for an answer.
        load = [f"--request-rate-range={level.value:g}", "--request-distribution=constant", "--max-threads=1"]
    return [str(analyzer.binary), *common, *load]


def _run(command: Sequence[str], analyzer: PerfAnalyzer, log: Path, limit_s: float) -> int | None:
    """The exit status; None where it took too long. Nothing of it is left in any case."""
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            env=analyzer.environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A group of its own: the newer wheel's program is a script that starts the real one.
            start_new_session=True,
        ) as process,
    ):
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return None
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
