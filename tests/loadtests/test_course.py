"""The phases of a run, as requests are reported."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from folio_loadtests.briefing import Briefing, Target
from folio_loadtests.course import Course, Plan
from folio_loadtests.recording import ProcessLoad, Recording
from folio_loadtests.sample import Cohort, Outcome, Phase, Sample
from folio_loadtests.schedules import Schedule
from folio_loadtests.server_counts import MetricsPage, ServerCounts
from folio_loadtests.workload import DEFAULT_FILE, read_workload

if TYPE_CHECKING:
    from collections.abc import Sequence

TARGET = Target("grpc://localhost:1", "smollm2", "attention", 1.0)


def started(
    *,
    num_warm_up: int = 100,
    duration_s: float = 60.0,
    drain_timeout_s: float = 30.0,
    metrics: MetricsPage | None = None,
) -> Course:
    """A course whose server was found and whose warm-up has begun."""
    workload = read_workload(DEFAULT_FILE)
    plan = Plan(
        target=TARGET,
        workload=workload,
        schedule=Schedule("ramp", 10, duration_s),
        metrics=metrics,
        num_warm_up=num_warm_up,
        warm_up_timeout_s=300,
        drain_timeout_s=drain_timeout_s,
        ready_timeout_s=1,
        max_sessions=1,
    )
    told: list[Briefing] = []
    course = Course(plan, Recording(), told.append)
    course.begin(Briefing(Phase.WARM_UP, TARGET, workload, 64, "int8", 1.0, 1, ()))
    return course


def add(course: Course, latencies_s: Sequence[float], kind: str = "chat") -> None:
    for latency_s in latencies_s:
        course.recording.add(Sample(Phase.WARM_UP, kind, Outcome.OK, "", Cohort.COLD, 0.0, 0.0, latency_s))


def phase_of(course: Course) -> Phase:
    assert course.briefing is not None
    return course.briefing.phase


def test_the_warm_up_ends_when_the_latencies_have_settled() -> None:
    course = started()
    add(course, [5.0, *[1.0] * 23])
    course.num_users()
    assert phase_of(course) is Phase.WARM_UP
    add(course, [1.0] * 50)
    assert course.num_users() == 1, "a ramp begins when the warm-up is over"
    assert phase_of(course) is Phase.MEASUREMENT
    assert "settled" in course.warm_up_end


def test_latencies_that_keep_falling_take_the_whole_warm_up() -> None:
    course = started(num_warm_up=60)
    add(course, [100 / (index + 1) for index in range(59)])
    course.num_users()
    assert phase_of(course) is Phase.WARM_UP
    add(course, [1.0])
    course.num_users()
    assert phase_of(course) is Phase.MEASUREMENT


def test_references_do_not_end_the_warm_up() -> None:
    course = started(num_warm_up=5)
    add(course, [1.0] * 20, kind="reference")
    course.num_users()
    assert phase_of(course) is Phase.WARM_UP


def test_no_warm_up_is_possible() -> None:
    course = started(num_warm_up=0)
    course.num_users()
    assert phase_of(course) is Phase.MEASUREMENT


@pytest.mark.parametrize(("drain_timeout_s", "num_unfinished"), [(30.0, None), (0.0, 2)])
def test_the_end_waits_for_what_is_under_way(drain_timeout_s: float, num_unfinished: int | None) -> None:
    course = started(num_warm_up=0, duration_s=1e-9, drain_timeout_s=drain_timeout_s)
    course.recording.processes["one"] = ProcessLoad(Phase.MEASUREMENT, num_open=2)
    course.num_users()
    assert course.num_users() == 10, "the load stays as it is until the end"
    assert phase_of(course) is Phase.ENDING
    if num_unfinished is not None:
        assert course.num_users() is None
        assert course.num_unfinished == num_unfinished
        return
    assert course.num_users() == 10
    course.recording.processes["one"] = ProcessLoad(Phase.ENDING, num_open=0)
    assert course.num_users() is None
    assert course.num_unfinished == 0


def test_a_server_that_is_gone_at_the_end_still_leaves_a_report() -> None:
    course = started(num_warm_up=0, metrics=MetricsPage("127.0.0.1:9", "smollm2"))
    course.counts.append(ServerCounts({}))
    course.finish()
    assert not course.counts
    assert "http://127.0.0.1:9/metrics cannot be read" in course.notes[-1]
