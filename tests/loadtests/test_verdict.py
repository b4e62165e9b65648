"""Which verdict outweighs which, and what each says."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from folio_loadtests.errors import RunError
from folio_loadtests.objectives import Objectives, Reached, judge_objectives, read_objectives
from folio_loadtests.recording import ProcessLoad
from folio_loadtests.sample import Phase
from folio_loadtests.verdict import Status, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

GOOD = Reached(p95_first_token_s=0.5, p95_inter_token_s=0.1, error_rate=0.0, goodput=1.0)
BAD = Reached(p95_first_token_s=1.5, p95_inter_token_s=0.1, error_rate=0.0, goodput=0.5)


def load(late_s: float = 0.001, cpu_s: float = 1.0) -> ProcessLoad:
    process = ProcessLoad(Phase.ENDING, 0, cpu_s=cpu_s, elapsed_s=10.0)
    for _ in range(100):
        process.late.add(late_s)
    return process


def verdict(
    reached: Reached = GOOD,
    *,
    num_measured: int = 10,
    wrong: Sequence[str] = (),
    process: ProcessLoad | None = None,
    faults: Sequence[str] = (),
) -> Verdict:
    objectives = judge_objectives(Objectives(), reached)
    processes = {"generator": process or load()}
    return judge(objectives, num_measured=num_measured, wrong=wrong, processes=processes, faults=faults)


def test_all_objectives_met() -> None:
    assert verdict().status is Status.PASSED


def test_a_missed_objective_is_named_with_its_figures() -> None:
    found = verdict(BAD)
    assert found.status is Status.MISSED
    assert [reason.split()[0] for reason in found.reasons] == ["p95_first_token_s", "goodput"]
    assert "1.5" in found.reasons[0]


def test_a_late_generator_measured_nothing() -> None:
    found = verdict(BAD, process=load(late_s=0.0105))
    assert found.status is Status.INVALID
    assert "10.5 ms late" in found.reasons[0]


def test_one_late_timer_in_a_hundred_is_not_yet_too_many() -> None:
    process = load()
    process.late.add(1.0)
    assert verdict(process=process).status is Status.PASSED


def test_a_busy_generator_measured_nothing() -> None:
    assert verdict(process=load(cpu_s=8.1)).status is Status.INVALID
    assert verdict(process=load(cpu_s=8.0)).status is Status.PASSED


def test_a_fault_of_the_suite_and_an_empty_run_are_invalid() -> None:
    assert verdict(faults=["KeyError"]).status is Status.INVALID
    assert verdict(num_measured=0).status is Status.INVALID


def test_wrong_output_outweighs_all_else() -> None:
    found = verdict(BAD, wrong=["off", "off", "short"], process=load(late_s=0.5))
    assert found.status is Status.WRONG
    assert found.reasons == ("Wrong output, 2 times: off.", "Wrong output, 1 times: short.")


def test_what_was_not_measured_misses_nothing() -> None:
    nothing = Reached(math.nan, math.nan, math.nan, math.nan)
    assert verdict(nothing).status is Status.PASSED


def test_arguments_override_the_file_and_the_file_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "slo.toml").write_text("goodput = 0.5\nerror_rate = 0.2\n")
    read = read_objectives(tmp_path / "slo.toml", {"goodput": 0.7, "error_rate": None})
    assert read == Objectives(goodput=0.7, error_rate=0.2)


@pytest.mark.parametrize("content", ["goodput = 2", "p95_first_token_s = 0", "latency = 1", "goodput ="])
def test_an_objective_that_cannot_be_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "slo.toml").write_text(content)
    with pytest.raises(RunError, match=r"slo\.toml.*(goodput|p95_first_token_s|latency|document)"):
        read_objectives(tmp_path / "slo.toml", {})
