"""Whole sweeps: real servers, real perf_analyzer, and the files that are left."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pytest

from folio_sweep import main
from folio_sweep.errors import LevelFailed
from folio_sweep.level_run import run_level
from folio_sweep.options import parse_options
from folio_sweep.series import Level
from folio_sweep.target import describe_generate
from folio_sweep.workload import SessionPlan, prepared_rows
from tests.server.generate_client import GenerateClient
from tests.server.grpc_stream import MODEL

if TYPE_CHECKING:
    from pathlib import Path

    from folio_sweep.analyzer import PerfAnalyzer
    from folio_sweep.series import Workload
    from tests.server.running_server import RunningServer
    from tests.sweep.conftest import FinishedSweep

PNG, SVG = b"\x89PNG", b"<?xml"


def levels(out: Path) -> list[dict[str, Any]]:
    rows = json.loads((out / "results.json").read_text())["levels"]
    assert isinstance(rows, list)
    return rows


def test_every_kind_of_load_is_measured_for_every_codec(sweep: FinishedSweep) -> None:
    rows = levels(sweep.out)
    assert sweep.status == 0, [row["failure"] for row in rows]
    names = ("codec", "model", "batch_delay_us", "workload", "mode", "level")
    measured = {tuple(row[name] for name in names) for row in rows}
    generate_loads: set[tuple[str, float]] = {("concurrency", value) for value in (1, 2, 4)} | {("request_rate", 20.0)}
    attention_loads: set[tuple[str, float]] = {("concurrency", value) for value in (1, 2)} | {("request_rate", 60.0)}
    models: list[tuple[str, int | None, set[tuple[str, float]]]] = [("tiny", None, generate_loads)]
    models += [(f"attention_{delay}us", delay, attention_loads) for delay in (0, 3000)]
    assert measured == {
        (codec, model, delay, workload, *load)
        for codec in ("int8", "int4")
        for model, delay, loads in models
        for workload in ("new", "resumed")
        for load in loads
    }
    assert len(rows) == len(measured)


def test_resumed_sessions_compute_only_what_is_new(sweep: FinishedSweep) -> None:
    for row in levels(sweep.out):
        if row["task"] == "generate":
            assert row["mean_prompt_tokens"] > 100, row
            cached_share = row["mean_cached_tokens"] / row["mean_prompt_tokens"]
            assert cached_share == 0 if row["workload"] == "new" else cached_share > 0.5, row


def test_every_token_is_counted_once(sweep: FinishedSweep) -> None:
    for row in levels(sweep.out):
        tokens_per_request = 4 if row["task"] == "generate" else 1
        assert row["throughput"] == pytest.approx(tokens_per_request * row["requests_per_s"], rel=1e-3)
        assert row["throughput_unit"] == ("tokens/s" if row["task"] == "generate" else "steps/s")
        if row["task"] == "generate":
            assert 0 < row["first_token_p50_ms"] < row["latency_p50_ms"]
            assert row["inter_token_p50_ms"] >= 0


def test_a_longer_batch_delay_shows_in_the_latency_of_lone_steps(sweep: FinishedSweep) -> None:
    lone = [row for row in levels(sweep.out) if row["task"] == "attention" and row["level"] == 1]
    for row in lone:
        if row["batch_delay_us"]:
            assert row["latency_p50_ms"] > row["batch_delay_us"] / 1000


def test_tables_and_plots_are_written(sweep: FinishedSweep) -> None:
    with (sweep.out / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["codec"] for row in rows] == [row["codec"] for row in levels(sweep.out)]
    kinds = [
        f"{task}_{workload}_{mode}"
        for task in ("generate", "attention")
        for workload in ("new", "resumed")
        for mode in ("concurrency", "request_rate")
    ]
    for kind in kinds:
        assert (sweep.out / f"{kind}.png").read_bytes().startswith(PNG)
        assert (sweep.out / f"{kind}.svg").read_bytes().startswith(SVG)


def test_codecs_stand_side_by_side_at_their_knees(sweep: FinishedSweep) -> None:
    document = json.loads((sweep.out / "results.json").read_text())
    assert "throughput" in document["knee_rule"]
    curves = [row for row in document["comparison"] if row["task"] == "generate" and row["mode"] == "concurrency"]
    assert [(row["workload"], row["codec"]) for row in curves] == [
        ("new", "int4"),
        ("new", "int8"),
        ("resumed", "int4"),
        ("resumed", "int8"),
    ]
    for row in curves:
        marked = [
            level["level"]
            for level in document["levels"]
            if level["is_knee"] and all(level[name] == row[name] for name in ("codec", "model", "workload", "mode"))
        ]
        assert marked == [row["knee_level"]]


def test_a_running_server_is_measured_as_it_is_and_left_without_sessions(
    analyzer: PerfAnalyzer, small_server: RunningServer, tmp_path: Path
) -> None:
    assert analyzer.version
    client = GenerateClient(small_server)
    before = client.operation("stats")["sessions"]
    sizes = ["--generate-prompt-length=5", "--generate-history-length=5", "--generate-num-requests=2"]
    load = ["--modes=concurrency", "--generate-concurrency=1", "--attention-models=", "--output-tokens=2"]
    where = [f"--host=grpc://{small_server.grpc_address}", f"--out={tmp_path}"]
    assert main.run([*sizes, *load, *where]) == 0
    assert [(row["codec"], row["workload"]) for row in levels(tmp_path)] == [("int8", "new"), ("int8", "resumed")]
    assert client.operation("stats")["sessions"] == before


@pytest.mark.parametrize("workload", ["new", "resumed"])
def test_a_level_that_the_server_refuses_fails_with_a_reason(
    workload: Workload, analyzer: PerfAnalyzer, small_server: RunningServer, tmp_path: Path
) -> None:
    target, level = describe_generate(small_server.grpc_address, MODEL), Level("concurrency", 6, 6)
    sizes = parse_options(["--generate-prompt-length=20", "--generate-history-length=5"]).generate
    with (
        prepared_rows(SessionPlan(target, level, workload, sizes, 8)) as rows,
        pytest.raises(LevelFailed, match=r"requests wait already|The server refused a request"),
    ):
        run_level(analyzer, target, level, rows, tmp_path / "run", limit_s=60)


def test_a_step_that_is_repeated_fails_its_level(
    analyzer: PerfAnalyzer, small_server: RunningServer, tmp_path: Path
) -> None:
    target, level = describe_generate(small_server.grpc_address, MODEL), Level("concurrency", 1, 2)
    sizes = parse_options(["--generate-prompt-length=5"]).generate
    with (
        prepared_rows(SessionPlan(target, level, "new", sizes, 1)) as rows,
        pytest.raises(LevelFailed, match="not each of the 1 rows"),
    ):
        run_level(analyzer, target, level, rows[:1], tmp_path / "run", limit_s=60)
