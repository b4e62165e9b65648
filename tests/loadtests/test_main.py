"""The command `folio-load`: what it was told, and what it says when that cannot be."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

import pytest

from folio_loadtests.arguments import add_arguments, read_options
from folio_loadtests.errors import RunError
from folio_loadtests.main import run
from folio_loadtests.verdict import Status

if TYPE_CHECKING:
    from pathlib import Path

    from folio_loadtests.arguments import RunOptions


def options(*arguments: str) -> RunOptions:
    """What these arguments say, with none of Locust's."""
    parser = ArgumentParser()
    add_arguments(parser)
    return read_options(parser.parse_args(arguments, Namespace(num_users=None, run_time=None)), "grpc://host:8001")


def test_the_defaults_are_a_minute_of_steady_load_and_the_servers_own_metrics() -> None:
    plan = options().plan
    assert (plan.schedule.shape, plan.schedule.num_users, plan.schedule.duration_s) == ("steady", 8, 60)
    assert plan.metrics is not None
    assert plan.num_warm_up == 100


def test_a_soak_is_an_hour_and_metrics_can_be_left_alone() -> None:
    plan = options("--shape=soak", "--metrics=none").plan
    assert plan.schedule.duration_s == 3600
    assert plan.metrics is None


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("--slo-goodput=2", "goodput"),
        ("--arrival-rate=0", "--arrival-rate is 0.0"),
        ("--max-sessions=-1", "--max-sessions is -1"),
        ("--workload=none.toml", "none.toml"),
    ],
)
def test_what_cannot_be_is_named(argument: str, named: str) -> None:
    with pytest.raises(RunError, match=named):
        options(argument)


def test_what_locust_refuses_is_no_missed_objective(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["--host=grpc://127.0.0.1:9", f"--report={tmp_path}", "--no-such-option"]) == Status.NOT_RUN
    assert "--no-such-option" in capfd.readouterr().err
