"""Every metric that Folio publishes: name, kind, help, labels and buckets.

Knows what each metric is called and means, and what it is called in vLLM. Does not know where values come
from (`metrics`) or how they reach the server (`metrics_publisher`, `triton_metrics`).
"""

from __future__ import annotations

import enum
import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

_METRIC_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL_NAME: Final = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")


class MetricKind(enum.Enum):
    """The kinds of metric that the server has, by the names it gives them."""

    COUNTER = "COUNTER"
    GAUGE = "GAUGE"
    HISTOGRAM = "HISTOGRAM"


@dataclass(frozen=True)
class Label:
    """A label besides those that every metric carries (model, version).

    Args:
        name: the label's name.
        known_values: values that are published, as 0, from the start; others appear when they first occur.
    """

    name: str
    known_values: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class MetricDefinition:
    """One metric. What the server would refuse is refused here: its refusals can end the whole server.

    Args:
        name: as it is published.
        kind: counter, gauge or histogram.
        help: what it means, with its unit.
        labels: labels of its own.
        buckets: upper bounds of a histogram's buckets, ascending, without infinity.
    """

    name: str
    kind: MetricKind
    help: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        assert _METRIC_NAME.fullmatch(self.name)
        assert self.help
        assert all(is_label_name(label.name) for label in self.labels)
        assert bool(self.buckets) == (self.kind is MetricKind.HISTOGRAM)
        assert all(math.isfinite(bound) for bound in self.buckets)
        assert all(lower < upper for lower, upper in itertools.pairwise(self.buckets))


def is_label_name(name: str) -> bool:
    """Whether the exposition format has labels of this name."""
    return _LABEL_NAME.fullmatch(name) is not None


def _counter(name: str, text: str, *labels: Label) -> MetricDefinition:
    return MetricDefinition(name, MetricKind.COUNTER, text, labels)


def _gauge(name: str, text: str, *labels: Label) -> MetricDefinition:
    return MetricDefinition(name, MetricKind.GAUGE, text, labels)


def _histogram(name: str, text: str, buckets: tuple[float, ...]) -> MetricDefinition:
    return MetricDefinition(name, MetricKind.HISTOGRAM, text, (), buckets)


PAGE_KINDS: Final = ("raw", "sealed")
PAGE_STATES: Final = ("free", "cached", "held", "loading")


def _ladder(steps: tuple[float, ...], powers: range) -> tuple[float, ...]:
    """Bounds that repeat `steps` in every power of ten; read from decimals, so that they print as written."""
    return tuple(float(f"{step}e{power}") for power in powers for step in steps)


_HISTORY_BUCKETS_S: Final = _ladder((1, 2.5, 5), range(-5, 1))
_SEND_BUCKETS_S: Final = _ladder((1, 2.5, 5), range(-4, 1))
_WAIT_BUCKETS_S: Final = _ladder((1, 2.5, 5), range(-3, 2))
_INTER_TOKEN_BUCKETS_S: Final = _ladder((1, 1.5, 2, 3, 5, 7), range(-3, 1))
_END_TO_END_BUCKETS_S: Final = _ladder((1, 2.5, 5), range(-2, 3))
_TOKEN_BUCKETS: Final = _ladder((1, 2, 5), range(6))
_CHOICE_BUCKETS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)

# The cache
CACHE_REQUESTS: Final = _counter(
    "kv_cache_requests_total",
    "Requests that found some of their prompt's KV in the cache (hit) and that found none (miss).",
    Label("status", ("hit", "miss")),
)
CACHE_LATENCY: Final = _histogram(
    "kv_cache_latency_seconds",
    "Time to make a request's history ready, lookup and load without computing, in seconds.",
    _HISTORY_BUCKETS_S,
)
CACHE_MEMORY_USAGE: Final = _gauge("kv_cache_memory_usage_bytes", "Memory of the pages in use, in bytes.")
CACHE_MEMORY_LIMIT: Final = _gauge("kv_cache_memory_limit_bytes", "Memory that the cache may take, in bytes.")
PAGES: Final = _gauge(
    "folio_pages",
    "Pages of the pool by kind and state; all of them sum to the pool.",
    Label("kind", PAGE_KINDS),
    Label("state", PAGE_STATES),
)
LOGICAL_BYTES: Final = _gauge(
    "folio_logical_bytes", "Bytes that the tokens in the cache would take uncompressed and unshared."
)
STORED_BYTES: Final = _gauge("folio_stored_bytes", "Bytes that the tokens in the cache take as they are stored.")
SESSIONS: Final = _gauge("folio_sessions", "Sessions that are kept.")
EVICTIONS: Final = _counter("folio_evictions_total", "Pages evicted, by reason.", Label("reason", ("cached", "idle")))

# The engine
REQUESTS_RUNNING: Final = _gauge("folio_requests_running", "Requests in the running batch.")
REQUESTS_WAITING: Final = _gauge("folio_requests_waiting", "Requests in the queue.")
PREEMPTIONS: Final = _counter("folio_preemptions_total", "Times that a running request gave up its pages.")
RECOMPILATIONS: Final = _counter(
    "folio_recompilations_total", "Compilations after the model became ready; there should be none."
)
HEARTBEAT: Final = _gauge(
    "folio_engine_heartbeat_timestamp_seconds",
    "When the engine last showed life, in seconds since 1970 (UTC).",
)

# Requests
REQUESTS_FINISHED: Final = _counter(
    "folio_requests_finished_total",
    "Requests that ended after admission, by finish reason.",
    Label("finish_reason", ("stop", "length", "cancelled")),
)
REJECTIONS: Final = _counter(
    "folio_rejections_total",
    "Requests answered with an error before they were admitted, by reason, and failed steps of an attention model; "
    "not operations that were carried out and found nothing to act on.",
    Label("reason", ("invalidargument", "queue_full", "draining")),
)
QUEUE_TIME: Final = _histogram(
    "folio_queue_seconds", "Time a request waited before it ran, in seconds.", _WAIT_BUCKETS_S
)
PREFILL_TIME: Final = _histogram(
    "folio_prefill_seconds", "Time from a request's first step to its first token, in seconds.", _WAIT_BUCKETS_S
)
DECODE_TIME: Final = _histogram(
    "folio_decode_seconds",
    "Time from a request's first token to its last, or to its early end, in seconds.",
    _END_TO_END_BUCKETS_S,
)
SEND_TIME: Final = _histogram(
    "folio_send_seconds",
    "Time from a request's last token, or early end, until the server had its last answer, in seconds.",
    _SEND_BUCKETS_S,
)
TIME_TO_FIRST_TOKEN: Final = _histogram(
    "folio_time_to_first_token_seconds",
    "Time from a request's arrival to its first token, in seconds.",
    _WAIT_BUCKETS_S,
)
INTER_TOKEN_TIME: Final = _histogram(
    "folio_inter_token_seconds",
    "A request's mean time between two tokens, in seconds; one observation for each request.",
    _INTER_TOKEN_BUCKETS_S,
)
END_TO_END_TIME: Final = _histogram(
    "folio_end_to_end_seconds",
    "Time from a request's arrival until the server had its last answer, in seconds.",
    _END_TO_END_BUCKETS_S,
)
PROMPT_TOKENS: Final = _counter("folio_prompt_tokens_total", "Prompt tokens of finished requests.")
CACHED_TOKENS: Final = _counter(
    "folio_cached_tokens_total", "Prompt tokens of finished requests whose KV was not computed again."
)
GENERATED_TOKENS: Final = _counter("folio_generated_tokens_total", "Tokens sampled for finished requests.")
REQUEST_PROMPT_TOKENS: Final = _histogram(
    "folio_request_prompt_tokens", "Prompt tokens of one request.", _TOKEN_BUCKETS
)
REQUEST_GENERATED_TOKENS: Final = _histogram(
    "folio_request_generated_tokens", "Tokens sampled for one request.", _TOKEN_BUCKETS
)
REQUEST_CHOICES: Final = _histogram("folio_request_choices", "Choices that a request asked for (`n`).", _CHOICE_BUCKETS)

METRICS: Final = (
    CACHE_REQUESTS,
    CACHE_LATENCY,
    CACHE_MEMORY_USAGE,
    CACHE_MEMORY_LIMIT,
    PAGES,
    LOGICAL_BYTES,
    STORED_BYTES,
    SESSIONS,
    EVICTIONS,
    REQUESTS_RUNNING,
    REQUESTS_WAITING,
    PREEMPTIONS,
    RECOMPILATIONS,
    HEARTBEAT,
    REQUESTS_FINISHED,
    REJECTIONS,
    QUEUE_TIME,
    PREFILL_TIME,
    DECODE_TIME,
    SEND_TIME,
    TIME_TO_FIRST_TOKEN,
    INTER_TOKEN_TIME,
    END_TO_END_TIME,
    PROMPT_TOKENS,
    CACHED_TOKENS,
    GENERATED_TOKENS,
    REQUEST_PROMPT_TOKENS,
    REQUEST_GENERATED_TOKENS,
    REQUEST_CHOICES,
)


def _renamed(definition: MetricDefinition, name: str) -> MetricDefinition:
    return MetricDefinition(name, definition.kind, definition.help, definition.labels, definition.buckets)


# vllm_backend publishes all but the first two; those are vLLM's own, read by dashboards and autoscalers.
_VLLM_NAMES: Final = (
    (REQUESTS_RUNNING, "vllm:num_requests_running"),
    (REQUESTS_WAITING, "vllm:num_requests_waiting"),
    (PROMPT_TOKENS, "vllm:prompt_tokens_total"),
    (GENERATED_TOKENS, "vllm:generation_tokens_total"),
    (TIME_TO_FIRST_TOKEN, "vllm:time_to_first_token_seconds"),
    (INTER_TOKEN_TIME, "vllm:time_per_output_token_seconds"),
    (END_TO_END_TIME, "vllm:e2e_request_latency_seconds"),
    (REQUEST_PROMPT_TOKENS, "vllm:request_prompt_tokens"),
    (REQUEST_GENERATED_TOKENS, "vllm:request_generation_tokens"),
    (REQUEST_CHOICES, "vllm:request_params_n"),
)
VLLM_ALIASES: Final[Mapping[MetricDefinition, MetricDefinition]] = MappingProxyType(
    {definition: _renamed(definition, name) for definition, name in _VLLM_NAMES}
)
