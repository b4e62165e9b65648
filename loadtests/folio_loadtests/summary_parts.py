"""The parts of a run's summary that are figures of requests, and of what was checked. See `summary`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

from folio_loadtests.comparison import TIE, bound_of
from folio_loadtests.course import Course
from folio_loadtests.distribution import Counts, Distribution
from folio_loadtests.sample import Cohort, Outcome, Phase, Sample
from folio_loadtests.server_counts import ServerCounts

Document: TypeAlias = dict[str, Any]


def outcomes_of(samples: Sequence[Sample], num_unfinished: int) -> Document:
    """How many requests came to what, and why those that were not OK."""
    counts: Document = {outcome.value: sum(sample.outcome is outcome for sample in samples) for outcome in Outcome}
    reasons = [sample.reason for sample in samples if sample.outcome is not Outcome.OK]
    counts["failed"] += num_unfinished
    counts["reasons"] = {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}
    if num_unfinished:
        counts["reasons"]["not answered before the end"] = num_unfinished
    return counts


def latency_of(samples: Sequence[Sample]) -> Document:
    """The four figures that differ by what they count from, over all requests that were answered."""
    answered = [sample for sample in samples if sample.outcome is Outcome.OK]
    figures = {
        "intended": Distribution.of(sample.latency_s for sample in answered),
        "sent": Distribution.of(sample.total_s for sample in answered),
        "intended_first_token": Distribution.of(sample.intended_first_token_s for sample in answered),
        "sent_first_token": Distribution.of(sample.first_token_s for sample in answered),
    }
    return {name: asdict(figure) for name, figure in figures.items()}


def pauses_of(pauses: Counts) -> Document:
    """Between two tokens."""
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    return {"num_values": len(pauses), **{name: pauses.percentile(share) for name, share in shares.items()}}


def kind_of(kind: str, measured: Sequence[Sample], duration_s: float) -> Document:
    """One kind of request; its times count from the intended start."""
    samples = [sample for sample in measured if sample.kind == kind]
    answered = [sample for sample in samples if sample.outcome is Outcome.OK]
    return {
        "kind": kind,
        "num_requests": len(samples),
        "per_s": len(answered) / duration_s if duration_s else math.nan,
        **{outcome.value: sum(sample.outcome is outcome for sample in samples) for outcome in Outcome},
        "latency": asdict(Distribution.of(sample.latency_s for sample in answered)),
        "first_token": asdict(Distribution.of(sample.intended_first_token_s for sample in answered)),
    }


def cohort_figures(cohort: Cohort, measured: Iterable[Sample]) -> Document:
    """One cohort of answered generations; its first token counts from the intended start."""
    samples = [sample for sample in measured if sample.cohort is cohort and sample.outcome is Outcome.OK]
    num_prompt = sum(sample.num_prompt_tokens for sample in samples)
    num_cached = sum(sample.num_cached_tokens for sample in samples)
    return {
        "cohort": cohort.value,
        "num_requests": len(samples),
        "num_prompt_tokens": num_prompt,
        "cached_share": num_cached / num_prompt if num_prompt else math.nan,
        "first_token": asdict(Distribution.of(sample.intended_first_token_s for sample in samples)),
        "inter_token": asdict(Distribution.of(sample.inter_token_s for sample in samples)),
    }


def warm_up_of(course: Course) -> Document:
    """What the measurement leaves out, and the cold start in it: the first generation of all."""
    samples = course.recording.of(Phase.WARM_UP)
    generations = sorted((sample for sample in samples if sample.first_token_s is not None), key=_intended_s)
    later = Distribution.of(sample.first_token_s for sample in generations[1:])
    return {
        "num_requests": len(samples),
        "ended_because": course.warm_up_end,
        "cold_start_first_token_s": generations[0].first_token_s if generations else None,
        "later_first_token": asdict(later),
        "latency": asdict(Distribution.of(sample.latency_s for sample in samples)),
        "outcomes": outcomes_of(samples, 0),
    }


def checks_of(course: Course) -> Document:
    """What was compared with references."""
    comparisons = course.recording.comparisons
    gaps = [comparison.tie_gap for comparison, _ in comparisons if comparison.tie_gap is not None]
    equal = [comparison for comparison, _ in comparisons if comparison.is_equal]
    return {
        "num_references": len(course.briefing.references) if course.briefing else 0,
        "codec": course.briefing.codec if course.briefing else None,
        "bound": bound_of(course.briefing.codec) if course.briefing else None,
        "num_compared": len(comparisons),
        "num_equal": len(equal),
        "num_tokens": sum(comparison.num_compared for comparison, _ in comparisons),
        "num_ties": sum(gap <= TIE for gap in gaps),
        "num_near_ties": sum(gap > TIE for gap in gaps),
        "worst": max((comparison.worst for comparison in equal), default=None),
        "cohorts": {
            cohort.value: sum(found is cohort for _, found in comparisons)
            for cohort in dict.fromkeys(found for _, found in comparisons)
        },
    }


def server_of(course: Course, measured: Sequence[Sample]) -> Document | None:
    """The client's figures beside the server's own; None where those were not read."""
    if len(course.counts) < 2:
        return None
    whole, window = course.counts[-1].since(course.counts[0]), course.counts[-1].since(course.counts[-2])
    sent = Distribution.of(sample.first_token_s for sample in measured)
    server_mean_s = window.mean_first_token_s
    return {
        "tokens": [_tokens(kind, course.recording.samples, whole) for kind in ("prompt", "cached", "generated")],
        "client_mean_first_token_s": sent.mean,
        "server_mean_first_token_s": server_mean_s,
        "difference_s": None if server_mean_s is None else sent.mean - server_mean_s,
        "client_p95_first_token_s": sent.p95,
        "server_p95_first_token_bound_s": window.p95_first_token_bound_s,
        "num_evicted_pages": whole.count("folio_evictions_total"),
        "num_preemptions": whole.count("folio_preemptions_total"),
    }


def generator_of(course: Course) -> list[Document]:
    """How busy each process of the generator was."""
    return [
        {"process": name, "late_p99_s": load.late.percentile(0.99), "cpu_share": load.cpu_share}
        for name, load in course.recording.processes.items()
    ]


def _tokens(kind: str, samples: Iterable[Sample], counts: ServerCounts) -> Document:
    client = sum(getattr(sample, f"num_{kind}_tokens") for sample in samples)
    server = counts.count(f"folio_{kind}_tokens_total")
    return {"kind": kind, "client": client, "server": server, "agrees": client == server}


def _intended_s(sample: Sample) -> float:
    return sample.intended_s
