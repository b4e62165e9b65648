"""Runs perf_analyzer for one load level, from input data to its profile export.

Knows its command line. One process measures one level, so that every row of the input data is sent exactly once:
perf_analyzer's thread t of n sends the rows t, t + n, t + 2n, ..., one after the other, and there are as many rows as
requests. Does not know what the rows mean.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from folio_sweep.analyzer import PerfAnalyzer
from folio_sweep.errors import LevelFailed
from folio_sweep.profile_export import Request, read_export
from folio_sweep.series import Level
from folio_sweep.target import Target

Row = Mapping[str, Any]
# It is written for every tensor that cannot be exported.
NOISE = ("WARNING: data type",)
MAX_REASON_CHARACTERS = 300
# What it says first when a request fails; it should end then, but its threads can wait for each other.
FAILED = "Failed to retrieve results from inference request"
FAILED_GRACE_S = 3.0
LOOK_INTERVAL_S = 1.0


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
    if status:
        raise LevelFailed(reason(log, status))
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


def reason(log: Path, status: int) -> str:
    """Why a run has failed, in one sentence, as far as perf_analyzer has said.

    Args:
        log: all that it said.
        status: how it ended.
    """
    text = log.read_text(errors="replace")
    lines = [line.strip() for line in text.splitlines()]
    errors = [line for line in lines if "error" in line.lower() and not line.startswith(NOISE)]
    if errors:
        return errors[0][:MAX_REASON_CHARACTERS]
    if FAILED in text:
        return "The server refused a request, or failed; perf_analyzer hung before it could say why."
    return f"perf_analyzer ended with {status}, or was not done in time; all that it said is in {log}."


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
        # A range of one: its end, left out, would be 1.
        load = [
            f"--request-rate-range={level.value:g}:{level.value:g}",
            "--request-distribution=constant",
            "--max-threads=1",
        ]
    return [str(analyzer.binary), *common, *load]


def _run(command: Sequence[str], analyzer: PerfAnalyzer, log: Path, limit_s: float) -> int:
    """The exit status; of a program that was ended the negative signal. Nothing of it is left in any case."""
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
            return _wait(process, log, limit_s)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def _wait(process: subprocess.Popen[bytes], log: Path, limit_s: float) -> int:
    """Waits for the end, and brings it about where it will not come: perf_analyzer can hang after a failed request."""
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(LOOK_INTERVAL_S)
        if FAILED in log.read_text(errors="replace"):
            end_s = min(end_s, time.monotonic() + FAILED_GRACE_S)
    os.killpg(process.pid, signal.SIGKILL)
    return process.wait()
