"""The GPU benchmark as far as it goes without a GPU: its cases, its arithmetic, its goals, and what it writes."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.baselines import Cache, error_of, expected_output, random_cache
from benchmarks.gpu.cases import (
    GOAL_SHAPE,
    GOAL_WORKLOAD,
    SHAPES,
    WORKLOADS,
    HeadShape,
    Workload,
    decode_bytes,
    uncompressed_bytes,
)
from benchmarks.gpu.histories import build_history
from benchmarks.gpu.report import as_json, as_table, write
from benchmarks.gpu.results import Baseline, Decode, Prefill, Results, Sealing, goals
from folio_kernels import reference
from folio_kernels.layout import PAGE_SIZE
from folio_kernels.pool import PagePool

DAY = dt.date(2026, 1, 31)
CPU = torch.device("cpu")
GOAL_CASE = (GOAL_SHAPE.name, GOAL_WORKLOAD.name)


def results(**changes: object) -> Results:
    """A GPU that copies 1,000 bytes a second; bf16 takes 1 s for 850 bytes, so it is as fast as the ideal kernel."""
    shape, workload = GOAL_CASE
    measured = Results(
        device="Imaginary GPU (80 GB)",
        versions={"torch": "2"},
        copy_bytes_per_s=1000.0,
        decodes=(Decode(shape, workload, "none", 1.0, 850), Decode(shape, workload, "int4", 0.25, 225)),
        baselines=(
            Baseline(shape, workload, "swift", 850, 1.0),
            Baseline(shape, workload, "slow", 850, 3.0),
            Baseline(shape, workload, "absent", 850, None, "is not installed"),
        ),
        sealings=(Sealing(shape, workload, "int4", 2.0, 1500, 0.01),),
        prefills=(Prefill(shape, 0, 64, "none", 2.0), Prefill(shape, 0, 64, "int4", 2.2)),
    )
    return dataclasses.replace(measured, **changes)  # type: ignore[arg-type]


def test_the_cases_are_those_that_were_asked_for() -> None:
    assert [shape.name for shape in SHAPES] == ["32/8/128", "64/8/128", "32/4/128", "32/32/128", "9/3/64"]
    names = ["1x4k", "1x32k", "1x128k", "16x32k", "64x8k", "128x2k", "ragged 1k-64k"]
    assert [workload.name for workload in WORKLOADS] == names
    assert (GOAL_SHAPE.name, GOAL_WORKLOAD.name) == ("32/8/128", "16x32k")
    assert GOAL_WORKLOAD.lengths == (32768,) * 16
    ragged = WORKLOADS[-1].lengths
    assert (min(ragged), max(ragged)) == (1024, 65536)
    assert any(length % PAGE_SIZE for length in ragged)


def test_a_step_reads_sealed_pages_and_besides_a_sink_and_the_open_pages_tokens() -> None:
    shape = HeadShape(8, 2, 128)
    record = shape.layout("int4").sealed_page_bytes
    workload = Workload("three", (1, 64, 5 * PAGE_SIZE + 7))
    assert shape.token_bytes() == 2 * 2 * 128 * 2
    assert decode_bytes(shape, workload, "int4") == 4 * record + (1 + 64 + 64 + 7) * shape.token_bytes()
    assert uncompressed_bytes(shape, workload) == (1 + 64 + 5 * PAGE_SIZE + 7) * shape.token_bytes()


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_without_compression_both_counts_agree(shape: HeadShape) -> None:
    for workload in WORKLOADS:
        assert decode_bytes(shape, workload, "none") == uncompressed_bytes(shape, workload)


@pytest.mark.parametrize("codec", ["none", "int4"])
@pytest.mark.parametrize(("length", "num_new"), [(1, 1), (64, 1), (300, 300), (290, 100)])
def test_histories_are_steps_that_the_operations_serve(codec: str, length: int, num_new: int) -> None:
    history = build_history(HeadShape(4, 2, 64), (length, 130), [num_new, 1], codec, CPU, compiled=False)
    pool, batch = history.operations.pool, history.batch
    assert isinstance(pool, PagePool)
    history.operations.append(0, history.key, history.value, batch.slots)
    if len(batch.seal_raw):
        history.operations.seal(slice(0, 1), batch.seal_raw, batch.seal_sealed)
    output = history.operations.attend(0, history.query, batch, 0.125)
    expected = reference.attend(pool, 0, history.query.double(), batch, 0.125)
    assert error_of(output, expected.float()) < 0.01  # outputs are bf16
    assert len(set(batch.slots.tolist())) == num_new + 1


def test_a_ragged_cache_is_attended_up_to_each_length() -> None:
    cache = random_cache(HeadShape(4, 2, 64), Workload("two", (3, 5)), CPU)
    assert cache.is_ragged
    cache.keys[0, 3:] = torch.nan
    shortened = Cache(cache.query[:1], cache.keys[:1, :3], cache.values[:1, :3], cache.lengths[:1], is_ragged=False)
    assert torch.equal(expected_output(cache)[:1], expected_output(shortened))


def ratio(measured: Results, decode: Decode) -> tuple[float, str]:
    """The ratio, rounded, and what it is taken against."""
    found = measured.ratio(decode)
    assert found is not None
    return round(found[0], 6), found[1]


def test_shares_and_ratios_follow_from_times() -> None:
    measured = results()
    none, int4 = measured.decodes
    assert measured.share_of_copy(int4) == pytest.approx(0.9)
    assert ratio(measured, int4) == (4.0, "swift")
    assert ratio(measured, none) == (1.0, "swift")
    assert measured.prefill_ratio(measured.prefills[1]) == pytest.approx(1.1)


def test_our_own_kernel_counts_among_the_baselines() -> None:
    measured = results()
    quicker = dataclasses.replace(measured.decodes[0], seconds=0.9)
    measured = dataclasses.replace(measured, decodes=(quicker, measured.decodes[1]), copy_bytes_per_s=1100.0)
    assert ratio(measured, measured.decodes[1]) == (3.6, "our none")


def test_a_slow_baseline_is_replaced_by_an_ideal_kernel_and_named_so() -> None:
    measured = results(copy_bytes_per_s=2000.0)
    assert ratio(measured, measured.decodes[1]) == (0.5 / 0.25, "ideal at 85%")


def test_without_any_baseline_there_is_no_ratio() -> None:
    measured = results(baselines=(), decodes=results().decodes[1:])
    assert measured.ratio(measured.decodes[0]) is None
    assert "no baseline" in as_table(measured, *GOAL_CASE, DAY)


def test_goals_are_met_missed_or_not_measured() -> None:
    found = {goal.text: goal.verdict for goal in goals(results(), *GOAL_CASE)}
    assert found["int4: share of copy bandwidth"] == "met"
    assert found["int4: times as fast as bf16"] == "met"
    assert found["k4v2: times as fast as bf16"] == "not measured"
    assert found["sealing int4: share of copy bandwidth"] == "met"
    assert found["sealing int4: share of a decode step"] == "met"
    assert found["prefill int4, 64 tokens after 0: time over none"] == "met"
    slower = results(decodes=(results().decodes[0], Decode(*GOAL_CASE, "int4", 0.5, 225)))
    missed = {goal.text for goal in goals(slower, *GOAL_CASE) if goal.verdict == "missed"}
    assert missed == {"int4: share of copy bandwidth", "int4: times as fast as bf16"}


def test_the_files_are_dated_and_hold_every_figure(tmp_path: Path) -> None:
    json_path, table_path = write(results(), *GOAL_CASE, DAY, tmp_path / "new")
    assert json_path.name == "2026-01-31-imaginary-gpu-80-gb.json"
    document = json.loads(json_path.read_text())
    assert document == as_json(results(), *GOAL_CASE, DAY)
    assert document["decodes"][1]["ratio_against"] == "swift"
    table = table_path.read_text()
    for text in ("| 32/8/128 | 16x32k | int4 | 250000.0 | 90.0% | 4.00 | swift |", "is not installed", "not measured"):
        assert text in table


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would run here")
def test_without_a_gpu_it_says_so_and_leaves_the_results_alone(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--folder", str(tmp_path / "results")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 3
    assert "no CUDA GPU" in finished.stderr
    assert not (tmp_path / "results").exists()
