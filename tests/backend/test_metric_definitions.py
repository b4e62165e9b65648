"""The names and help that a dashboard is written against."""

from __future__ import annotations

import pytest

from folio_backend.metric_definitions import (
    METRICS,
    VLLM_ALIASES,
    Label,
    MetricDefinition,
    MetricKind,
)

PROMISED = {
    "kv_cache_requests_total": ("COUNTER", ("status",)),
    "kv_cache_latency_seconds": ("HISTOGRAM", ()),
    "kv_cache_memory_usage_bytes": ("GAUGE", ()),
    "kv_cache_memory_limit_bytes": ("GAUGE", ()),
    "folio_requests_running": ("GAUGE", ()),
    "folio_requests_waiting": ("GAUGE", ()),
    "folio_queue_seconds": ("HISTOGRAM", ()),
    "folio_time_to_first_token_seconds": ("HISTOGRAM", ()),
    "folio_inter_token_seconds": ("HISTOGRAM", ()),
    "folio_end_to_end_seconds": ("HISTOGRAM", ()),
    "folio_prompt_tokens_total": ("COUNTER", ()),
    "folio_generated_tokens_total": ("COUNTER", ()),
    "folio_cached_tokens_total": ("COUNTER", ()),
    "folio_pages": ("GAUGE", ("kind", "state")),
    "folio_sessions": ("GAUGE", ()),
    "folio_evictions_total": ("COUNTER", ("reason",)),
    "folio_preemptions_total": ("COUNTER", ()),
    "folio_rejections_total": ("COUNTER", ("reason",)),
    "folio_requests_finished_total": ("COUNTER", ("finish_reason",)),
    "folio_logical_bytes": ("GAUGE", ()),
    "folio_stored_bytes": ("GAUGE", ()),
    "folio_recompilations_total": ("COUNTER", ()),
    "folio_engine_heartbeat_timestamp_seconds": ("GAUGE", ()),
}


def test_every_promised_metric_is_there() -> None:
    declared = {metric.name: (metric.kind.value, tuple(label.name for label in metric.labels)) for metric in METRICS}
    assert declared.items() >= PROMISED.items()


def test_names_are_unique_and_follow_the_conventions() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert all(name.startswith(("folio_", "kv_cache_")) for name in names)
    assert all(metric.name.endswith("_total") == (metric.kind is MetricKind.COUNTER) for metric in METRICS)
    assert all("second" in metric.help for metric in METRICS if metric.name.endswith("_seconds"))
    assert all("bytes" in metric.help.lower() for metric in METRICS if metric.name.endswith("_bytes"))


def test_vllm_backend_s_names_are_covered() -> None:
    names = {alias.name for alias in VLLM_ALIASES.values()}
    assert names == {
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:prompt_tokens_total",
        "vllm:generation_tokens_total",
        "vllm:time_to_first_token_seconds",
        "vllm:time_per_output_token_seconds",
        "vllm:e2e_request_latency_seconds",
        "vllm:request_prompt_tokens",
        "vllm:request_generation_tokens",
        "vllm:request_params_n",
    }
    assert set(VLLM_ALIASES) <= set(METRICS)


@pytest.mark.parametrize(
    ("name", "kind", "labels", "buckets"),
    [
        ("has space", MetricKind.GAUGE, (), ()),
        ("1st", MetricKind.GAUGE, (), ()),
        ("folio_x", MetricKind.GAUGE, (Label("a-b"),), ()),
        ("folio_x", MetricKind.GAUGE, (Label("__x"),), ()),
        ("folio_x", MetricKind.GAUGE, (), (1.0,)),
        ("folio_x", MetricKind.HISTOGRAM, (), ()),
        ("folio_x", MetricKind.HISTOGRAM, (), (2.0, 1.0)),
        ("folio_x", MetricKind.HISTOGRAM, (), (1.0, 1.0)),
        ("folio_x", MetricKind.HISTOGRAM, (), (1.0, float("inf"))),
    ],
)
def test_what_the_server_would_refuse_is_no_definition(
    name: str, kind: MetricKind, labels: tuple[Label, ...], buckets: tuple[float, ...]
) -> None:
    with pytest.raises(AssertionError):
        MetricDefinition(name, kind, "Help.", labels, buckets)
