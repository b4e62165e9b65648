"""Whole sweeps: real servers, real perf_analyzer, and the files that are left."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pytest

from folio_client import Client
from folio_sweep import main
from folio_sweep.errors import LevelFailed
from folio_sweep.level_run import run_level
from folio_sweep.options import parse_options
from folio_sweep.series import Level
from folio_sweep.target import describe_generate
from folio_sweep.workload import SessionPlan, prepared_rows
from tests.sweep.conftest import BATCH_DELAYS_US, GENERATE_SIZES
from tests.sweep.tiny_repository import GENERATE

if TYPE_CHECKING:
    from pathlib import Path

    from folio_sweep.analyzer import PerfAnalyzer
    from folio_sweep.series import Workload
    from tests.sweep.conftest import FinishedSweep, TinyServer

SIZES = parse_options(GENERATE_SIZES).generate
PNG, SVG = b"\x89PNG", b"<?xml"


def levels(out: Path) -> list[dict[str, Any]]:
    rows = json.loads((out / "results.json").read_text())["levels"]
    assert isinstance(rows, list)
    return rows


def test_every_kind_of_load_is_measured_for_every_codec(sweep: FinishedSweep) -> None:
    rows = levels(sweep.out)
    assert sweep.status == 0, [row["failure"] for row in rows]
    loads = [("concurrency", value) for value in (1, 2, 4)] + [("request_rate", 20)]
    assert [(row["codec"], row["workload"], row["mode"], row["level"]) for row in rows] == [
        (codec, workload, *load) for codec in ("int8", "int4") for workload in ("new", "resumed") for load in loads
    ]


def test_attention_steps_are_measured_for_every_batch_delay(attention_sweep: FinishedSweep) -> None:
    rows = levels(attention_sweep.out)
    assert attention_sweep.status == 0, [row["failure"] for row in rows]
    loads = [("concurrency", value) for value in (1, 2)] + [("request_rate", 60)]
    assert [(row["codec"], row["batch_delay_us"], row["workload"], row["mode"], row["level"]) for row in rows] == [
        ("int4", delay, workload, *load)
        for delay in BATCH_DELAYS_US
        for workload in ("new", "resumed")
        for load in loads
    ]


def test_resumed_sessions_compute_only_what_is_new(sweep: FinishedSweep) -> None:
    for row in levels(sweep.out):
        assert row["mean_prompt_tokens"] > 100, row
        cached_share = row["mean_cached_tokens"] / row["mean_prompt_tokens"]
        assert cached_share == 0 if row["workload"] == "new" else cached_share > 0.5, row


def test_every_token_and_every_step_is_counted_once(sweep: FinishedSweep, attention_sweep: FinishedSweep) -> None:
    for row in levels(sweep.out):
        assert row["throughput"] == pytest.approx(4 * row["requests_per_s"], rel=1e-3)
        assert 0 < row["first_token_p50_ms"] < row["latency_p50_ms"]
        assert row["inter_token_p50_ms"] >= 0
    for row in levels(attention_sweep.out):
        assert row["throughput"] == row["requests_per_s"]
        assert row["first_token_p50_ms"] is None


def test_a_batch_delay_shows_in_the_latency_of_lone_steps(attention_sweep: FinishedSweep) -> None:
    lone = [row for row in levels(attention_sweep.out) if row["level"] == 1]
    assert len(lone) == 4
    for row in lone:
        assert row["latency_p50_ms"] > row["batch_delay_us"] / 1000


def test_tables_and_plots_are_written(sweep: FinishedSweep, attention_sweep: FinishedSweep) -> None:
    for task, out in (("generate", sweep.out), ("attention", attention_sweep.out)):
        with (out / "results.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["codec"] for row in rows] == [row["codec"] for row in levels(out)]
        for kind in ("new_concurrency", "new_request_rate", "resumed_concurrency", "resumed_request_rate"):
            assert (out / f"{task}_{kind}.png").read_bytes().startswith(PNG)
            assert (out / f"{task}_{kind}.svg").read_bytes().startswith(SVG)


def test_codecs_stand_side_by_side_at_their_knees(sweep: FinishedSweep) -> None:
    document = json.loads((sweep.out / "results.json").read_text())
    assert "throughput" in document["knee_rule"]
    curves = [row for row in document["comparison"] if row["mode"] == "concurrency"]
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


def test_a_sweep_leaves_no_sessions(attention_sweep: FinishedSweep, tiny_server: TinyServer) -> None:
    assert attention_sweep.status == 0
    for model in tiny_server.attention_models:
        with Client(f"grpc://{tiny_server.address}", attention_model=model) as client:
            assert client.attention.admin.stats().num_sessions == 0


@pytest.mark.parametrize("workload", ["new", "resumed"])
def test_a_level_that_the_server_refuses_fails_with_a_reason(
    workload: Workload, analyzer: PerfAnalyzer, tiny_server: TinyServer, tmp_path: Path
) -> None:
    target, level = describe_generate(tiny_server.address, GENERATE), Level("concurrency", 8, 8)
    with (
        prepared_rows(SessionPlan(target, level, workload, SIZES, 32)) as rows,
        pytest.raises(LevelFailed, match=r"wait already|The server refused a request"),
    ):
        run_level(analyzer, target, level, rows, tmp_path / "run", limit_s=60)
    with Client(f"grpc://{tiny_server.address}", model=GENERATE) as client:
        assert client.admin.stats().num_sessions == 0


def test_a_sweep_goes_on_after_a_refused_level_and_says_so_in_the_end(
    analyzer: PerfAnalyzer, tiny_server: TinyServer, tmp_path: Path
) -> None:
    assert analyzer.version
    load = ["--workloads=new", "--modes=concurrency", "--generate-concurrency=1 8", "--attention-models="]
    where = [f"--host={tiny_server.address}", f"--out={tmp_path}"]
    for _ in range(2):  # the second one into the first one's folder
        assert main.run([*GENERATE_SIZES, "--output-tokens=32", *load, *where]) == 1
        assert [(row["level"], row["failure"] == "") for row in levels(tmp_path)] == [(1, True), (8, False)]
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_a_request_that_is_repeated_fails_its_level(
    analyzer: PerfAnalyzer, tiny_server: TinyServer, tmp_path: Path
) -> None:
    target, level = describe_generate(tiny_server.address, GENERATE), Level("concurrency", 1, 2)
    with (
        prepared_rows(SessionPlan(target, level, "new", SIZES, 1)) as rows,
        pytest.raises(LevelFailed, match="not each of the 1 rows"),
    ):
        run_level(analyzer, target, level, rows[:1], tmp_path / "run", limit_s=60)


def test_a_perf_analyzer_that_takes_too_long_is_ended(
    analyzer: PerfAnalyzer, tiny_server: TinyServer, tmp_path: Path
) -> None:
    target, level = describe_generate(tiny_server.address, GENERATE), Level("request_rate", 0.01, 2)
    with (
        prepared_rows(SessionPlan(target, level, "new", SIZES, 1)) as rows,
        pytest.raises(LevelFailed, match="in time"),
    ):
        run_level(analyzer, target, level, rows, tmp_path / "run", limit_s=0.1)
