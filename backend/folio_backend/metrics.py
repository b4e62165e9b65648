"""What there is to measure, collected in memory.

Knows what a finished request and the engine's state say about every metric. Does not know how or when it is
published (`metrics_publisher`). Nothing that a request said enters here: numbers, and reasons of our own.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from folio_backend import metric_definitions as definitions
from folio_backend.request_timings import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from folio_backend.metric_definitions import MetricDefinition
    from folio_backend.request_timings import RequestTimings


@dataclass(frozen=True)
class EngineSnapshot:
    """The engine's state at one moment. The mappings are not changed afterwards.

    Args:
        num_running: requests in the batch.
        num_waiting: requests in the queue.
        num_pages: (kind, state) to number of pages.
        num_sessions: sessions that are kept.
        num_evictions: reason to pages evicted since the start; never falls.
        num_preemptions: preemptions since the start; never falls.
        num_recompilations: compilations since the model became ready; never falls.
        logical_bytes: what the cached tokens would take uncompressed and unshared.
        stored_bytes: what they take.
        memory_usage_bytes: memory of the pages in use.
        memory_limit_bytes: memory that the cache may take.
        heartbeat_s: when this was taken, in seconds since 1970 (UTC).
    """

    num_running: int
    num_waiting: int
    num_pages: Mapping[tuple[str, str], int]
    num_sessions: int
    num_evictions: Mapping[str, int]
    num_preemptions: int
    num_recompilations: int
    logical_bytes: int
    stored_bytes: int
    memory_usage_bytes: int
    memory_limit_bytes: int
    heartbeat_s: float


@dataclass(frozen=True)
class Series:
    """One time series of a metric: the values of its own labels, in the order of its definition."""

    definition: MetricDefinition
    label_values: tuple[str, ...] = ()

    def labels(self) -> dict[str, str]:
        """Label name to value."""
        names = (label.name for label in self.definition.labels)
        return dict(zip(names, self.label_values, strict=True))


@dataclass(frozen=True)
class Readings:
    """What a recorder holds at one moment.

    Args:
        totals: counter to its total since the recorder began.
        levels: gauge to its value now; empty before the first snapshot.
        observations: what histograms have to observe since the last reading, each told once.
    """

    totals: Mapping[Series, float]
    levels: Mapping[Series, float]
    observations: tuple[tuple[Series, float], ...]


class MetricsRecorder:
    """Takes what happens from any thread and keeps it until it is read; each call only stores a value."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._finished: list[RequestTimings] = []
        self._totals: Counter[Series] = Counter()
        self._snapshot: EngineSnapshot | None = None

    def observe_request(self, timings: RequestTimings) -> None:
        """Takes a request whose last answer has left; one that was refused is only counted."""
        with self._lock:
            self._finished.append(timings)

    def count_rejection(self, reason: str) -> None:
        """Counts a refused request under a short reason of ours."""
        with self._lock:
            self._totals[Series(definitions.REJECTIONS, (reason,))] += 1

    def set_snapshot(self, snapshot: EngineSnapshot) -> None:
        """Takes the engine's state; an earlier one that was never read is superseded."""
        with self._lock:
            self._snapshot = snapshot

    def drain(self) -> Readings:
        """Everything up to now; observations are handed out once, so there is one reader."""
        with self._lock:
            finished, self._finished = self._finished, []
            for timings in finished:
                self._totals.update(_request_counts(timings))
            totals: dict[Series, float] = dict(self._totals)
            snapshot = self._snapshot
        observations = tuple(itertools.chain.from_iterable(map(_request_observations, finished)))
        if snapshot is None:
            return Readings(totals, {}, observations)
        return Readings(totals | _snapshot_totals(snapshot), _snapshot_levels(snapshot), observations)


def known_series(definition: MetricDefinition) -> Iterator[Series]:
    """The series of a metric that are known before anything happens."""
    for label_values in itertools.product(*(label.known_values for label in definition.labels)):
        yield Series(definition, label_values)


def _request_counts(timings: RequestTimings) -> dict[Series, int]:
    if timings.outcome is Outcome.REFUSED:
        return {Series(definitions.REJECTIONS, (timings.finish_reason,)): 1}
    counts = {
        Series(definitions.PROMPT_TOKENS): timings.num_prompt_tokens,
        Series(definitions.CACHED_TOKENS): timings.num_cached_tokens,
        Series(definitions.GENERATED_TOKENS): timings.num_generated_tokens,
        Series(definitions.REQUESTS_FINISHED, (timings.finish_reason,)): 1,
    }
    if timings.history_s is not None:
        status = "hit" if timings.num_cached_tokens else "miss"
        counts[Series(definitions.CACHE_REQUESTS, (status,))] = 1
    return counts


def _request_observations(timings: RequestTimings) -> Iterator[tuple[Series, float]]:
    if timings.outcome is Outcome.REFUSED:
        return
    has_token = timings.ttft_s is not None
    observed = (
        (definitions.QUEUE_TIME, timings.queue_s),
        (definitions.PREFILL_TIME, timings.prefill_s if has_token else None),
        (definitions.DECODE_TIME, timings.decode_s),
        (definitions.SEND_TIME, timings.send_s),
        (definitions.TIME_TO_FIRST_TOKEN, timings.ttft_s),
        (definitions.INTER_TOKEN_TIME, timings.mean_inter_token_s),
        (definitions.END_TO_END_TIME, timings.end_to_end_s),
        (definitions.CACHE_LATENCY, timings.history_s),
        (definitions.REQUEST_PROMPT_TOKENS, timings.num_prompt_tokens),
        (definitions.REQUEST_GENERATED_TOKENS, timings.num_generated_tokens),
        (definitions.REQUEST_CHOICES, timings.num_choices),
    )
    for definition, value in observed:
        if value is not None:
            yield Series(definition), float(value)


def _snapshot_totals(snapshot: EngineSnapshot) -> dict[Series, float]:
    evictions = snapshot.num_evictions.items()
    return {
        **{Series(definitions.EVICTIONS, (reason,)): count for reason, count in evictions},
        Series(definitions.PREEMPTIONS): snapshot.num_preemptions,
        Series(definitions.RECOMPILATIONS): snapshot.num_recompilations,
    }


def _snapshot_levels(snapshot: EngineSnapshot) -> dict[Series, float]:
    pages = snapshot.num_pages.items()
    return {
        **{Series(definitions.PAGES, kind_and_state): count for kind_and_state, count in pages},
        Series(definitions.REQUESTS_RUNNING): snapshot.num_running,
        Series(definitions.REQUESTS_WAITING): snapshot.num_waiting,
        Series(definitions.SESSIONS): snapshot.num_sessions,
        Series(definitions.LOGICAL_BYTES): snapshot.logical_bytes,
        Series(definitions.STORED_BYTES): snapshot.stored_bytes,
        Series(definitions.CACHE_MEMORY_USAGE): snapshot.memory_usage_bytes,
        Series(definitions.CACHE_MEMORY_LIMIT): snapshot.memory_limit_bytes,
        Series(definitions.HEARTBEAT): snapshot.heartbeat_s,
    }
