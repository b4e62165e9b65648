"""Which levels a series has."""

from __future__ import annotations

import math
from collections.abc import Sequence

from folio_sweep.options import RATE_SHARES, Options, TaskOptions
from folio_sweep.series import Level, Point

# Enough that percentiles are not of one wave, in which all requests wait for each other's prompts.
WAVES = 3
SIGNIFICANT_DIGITS = 3


def concurrency_levels(options: TaskOptions) -> tuple[Level, ...]:
    """Requests at a time, level by level."""
    return tuple(Level("concurrency", value, max(options.num_requests, WAVES * value)) for value in options.concurrency)


def rate_levels(rates: Sequence[float], options: TaskOptions) -> tuple[Level, ...]:
    """Requests a second, level by level; perf_analyzer sends no less than a second's worth."""
    return tuple(Level("request_rate", rate, max(options.num_requests, math.ceil(rate))) for rate in rates)


def num_levels(options: Options) -> int:
    """How many levels a sweep has."""
    num_delays = 1 if options.host else len(options.batch_delays_us)
    tasks = ((options.generate, 1), (options.attention, num_delays))
    num_on_server = sum(len(task.models) * variants * _num_levels(task, options.modes) for task, variants in tasks)
    return (1 if options.host else len(options.codecs)) * len(options.workloads) * num_on_server


def _num_levels(task: TaskOptions, modes: Sequence[str]) -> int:
    counts = {"concurrency": len(task.concurrency), "request_rate": len(task.rates or RATE_SHARES)}
    return sum(counts[mode] for mode in modes)


def rates_below_and_above(points: Sequence[Point]) -> tuple[float, ...]:
    """Rates around the highest throughput of a series by concurrency; none where it has no measurement."""
    peak = max((point.measurement.requests_per_s for point in points if point.measurement), default=0.0)
    return tuple(float(f"{peak * share:.{SIGNIFICANT_DIGITS}g}") for share in RATE_SHARES) if peak else ()
