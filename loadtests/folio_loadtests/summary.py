"""A run's figures as one JSON document, from which every report is made. Does not know how they are shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from folio_loadtests.course import Course
from folio_loadtests.distribution import Counts, Distribution
from folio_loadtests.objectives import Objectives, Reached, judge_objectives
from folio_loadtests.sample import Cohort, Outcome, Phase, Sample
from folio_loadtests.summary_parts import (
    Document,
    checks_of,
    cohort_figures,
    generator_of,
    kind_of,
    latency_of,
    outcomes_of,
    pauses_of,
    server_of,
    warm_up_of,
)
from folio_loadtests.verdict import judge

# The tail must be this much longer from the intended start for the report to speak of it.
OMISSION_FACTOR, OMISSION_S = 1.5, 0.1


def summarise(course: Course, objectives: Objectives) -> Document:
    """The document: numbers that could not be measured are null."""
    recording, measured = course.recording, course.recording.of(Phase.MEASUREMENT)
    duration_s = (course.end_s or 0.0) - (course.start_s or 0.0)
    reached = reach(measured, recording.pauses[Phase.MEASUREMENT], objectives, course.num_unfinished)
    judged = judge_objectives(objectives, reached)
    wrong = [sample.reason for sample in recording.samples if sample.outcome is Outcome.WRONG]
    verdict = judge(
        judged, num_measured=len(measured), wrong=wrong, processes=recording.processes, faults=recording.faults
    )
    document: Document = {
        "verdict": {"status": int(verdict.status), "name": verdict.status.name.lower(), "reasons": verdict.reasons},
        "run": _run(course, duration_s),
        "objectives": [asdict(objective) for objective in judged],
        "outcomes": outcomes_of(measured, course.num_unfinished),
        "latency": latency_of(measured),
        "inter_token_s": pauses_of(recording.pauses[Phase.MEASUREMENT]),
        "kinds": [kind_of(kind, measured, duration_s) for kind in sorted({sample.kind for sample in measured})],
        "cohorts": [cohort_figures(cohort, measured) for cohort in Cohort],
        "warm_up": warm_up_of(course),
        "checks": checks_of(course),
        "server": server_of(course, measured),
        "generator": generator_of(course),
        "notes": _notes(course, measured),
    }
    return {name: _without_nan(member) for name, member in document.items()}


def reach(measured: Sequence[Sample], pauses: Counts, objectives: Objectives, num_unfinished: int) -> Reached:
    """What the measured requests come to. One that had not ended when the run did has failed."""
    generations = [sample for sample in measured if sample.cohort is not None or sample.outcome is Outcome.REFUSED]
    first_token = Distribution.of(sample.intended_first_token_s for sample in measured)
    num_asked = len(measured) + num_unfinished
    num_failed = sum(sample.outcome in {Outcome.FAILED, Outcome.WRONG} for sample in measured) + num_unfinished
    num_good = sum(is_good(sample, objectives) for sample in generations)
    return Reached(
        p95_first_token_s=first_token.p95,
        p95_inter_token_s=pauses.percentile(0.95),
        error_rate=num_failed / num_asked if num_asked else math.nan,
        goodput=num_good / (len(generations) + num_unfinished) if generations or num_unfinished else math.nan,
    )


def is_good(sample: Sample, objectives: Objectives) -> bool:
    """Whether a generation was answered well, and within the bounds of both times."""
    first_token_s = sample.intended_first_token_s
    return (
        sample.outcome is Outcome.OK
        and first_token_s is not None
        and first_token_s <= objectives.p95_first_token_s
        and (sample.inter_token_s or 0.0) <= objectives.p95_inter_token_s
    )


def _run(course: Course, duration_s: float) -> Document:
    plan, schedule = course.plan, course.plan.schedule
    return {
        "target": asdict(plan.target),
        "shape": schedule.shape,
        "num_users": schedule.num_users,
        "arrival_rate": schedule.arrival_rate if schedule.shape == "poisson" else None,
        "start_s": course.start_s,
        "duration_s": duration_s,
        "users": {kind: user.model_dump() for kind, user in plan.workload.users.items()},
    }


def _notes(course: Course, measured: Sequence[Sample]) -> list[str]:
    notes = list(course.notes)
    latency = latency_of(measured)
    intended, sent = latency["intended"]["p99"], latency["sent"]["p99"]
    if intended > max(sent * OMISSION_FACTOR, sent + OMISSION_S):
        notes.append(
            f"Coordinated omission: the 99th percentile is {sent:.3f} s counted from when requests were sent, and "
            f"{intended:.3f} s from when they were meant to be. The server kept requests waiting that were not even "
            "sent; the second figure is what users met."
        )
    return notes


def _without_nan(value: Any) -> Any:
    """The same with null for what is not a number: JSON has no word for it."""
    if isinstance(value, dict):
        return {key: _without_nan(member) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(member) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
