"""What the server's own metrics port says of the generate model: names, kinds, helps, and exact counts."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.server.generate_client import sampling
from tests.server.grpc_stream import Refused
from tests.server.metrics_page import MetricsPage

if TYPE_CHECKING:
    from tests.server.generate_client import GenerateClient
    from tests.server.running_server import RunningServer

KINDS = {
    "kv_cache_requests": "counter",
    "kv_cache_latency_seconds": "histogram",
    "kv_cache_memory_usage_bytes": "gauge",
    "kv_cache_memory_limit_bytes": "gauge",
    "folio_requests_running": "gauge",
    "folio_requests_waiting": "gauge",
    "folio_queue_seconds": "histogram",
    "folio_prefill_seconds": "histogram",
    "folio_decode_seconds": "histogram",
    "folio_send_seconds": "histogram",
    "folio_time_to_first_token_seconds": "histogram",
    "folio_inter_token_seconds": "histogram",
    "folio_end_to_end_seconds": "histogram",
    "folio_prompt_tokens": "counter",
    "folio_generated_tokens": "counter",
    "folio_cached_tokens": "counter",
    "folio_pages": "gauge",
    "folio_sessions": "gauge",
    "folio_evictions": "counter",
    "folio_preemptions": "counter",
    "folio_rejections": "counter",
    "folio_requests_finished": "counter",
    "folio_logical_bytes": "gauge",
    "folio_stored_bytes": "gauge",
    "folio_recompilations": "counter",
    "folio_engine_heartbeat_timestamp_seconds": "gauge",
}
# Two pages of 64 tokens and some; no other test may have it in the cache.
LONG_TEXT = "The metrics of a cache are counted in a quiet room by a clerk with a pencil. " * 9


@pytest.fixture
def page(server: RunningServer) -> MetricsPage:
    """The metrics of the server that all tests share."""
    return MetricsPage(server.metrics_address)


def changes(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """What moved, of counters and of histograms' counts and sums of whole numbers, and by how much."""
    is_exact = ("_total{", "_count{", "_tokens_sum{", "_choices_sum{")
    names = (name for name in after if any(part in name for part in is_exact))
    moved = {name: after[name] - before.get(name, 0) for name in names if not name.startswith("nv_")}
    return {name: change for name, change in moved.items() if change}


def test_every_metric_has_its_kind_help_and_labels(page: MetricsPage) -> None:
    families = {family.name: family for family in page.families()}
    found = {name: families[name].type for name in KINDS if name in families}
    assert found == KINDS
    ours = [family for family in families.values() if family.name.startswith(("folio_", "kv_cache_"))]
    for family in ours:
        assert family.documentation.endswith("."), family.name
        labels = {label for sample in family.samples for label in sample.labels}
        assert labels <= {"model", "version", "le", "status", "kind", "state", "reason", "finish_reason"}


def test_a_first_and_a_second_request(client: GenerateClient, page: MetricsPage) -> None:
    before = page.settled()
    fields = {"text_input": LONG_TEXT, "sampling_parameters": sampling(max_tokens=3, ignore_eos=True)}
    answers = [client.generate(**fields, return_num_input_tokens=True) for _ in range(2)]
    num_prompt = answers[0]["num_input_tokens"]
    num_cached = (num_prompt - 1) // 64 * 64
    assert [answer["num_cached_tokens"] for answer in answers] == [0, num_cached]
    histograms = ("queue", "prefill", "decode", "send", "time_to_first_token", "inter_token", "end_to_end")
    assert changes(before, page.settled()) == {
        "kv_cache_requests_total{status=miss}": 1,
        "kv_cache_requests_total{status=hit}": 1,
        "kv_cache_latency_seconds_count{}": 2,
        "folio_prompt_tokens_total{}": 2 * num_prompt,
        "folio_cached_tokens_total{}": num_cached,
        "folio_generated_tokens_total{}": 6,
        "folio_requests_finished_total{finish_reason=length}": 2,
        **{f"folio_{name}_seconds_count{{}}": 2 for name in histograms},
        "folio_request_prompt_tokens_count{}": 2,
        "folio_request_prompt_tokens_sum{}": 2 * num_prompt,
        "folio_request_generated_tokens_count{}": 2,
        "folio_request_generated_tokens_sum{}": 6,
        "folio_request_choices_count{}": 2,
        "folio_request_choices_sum{}": 2,
    }


def test_refused_cancelled_and_stopped_requests(client: GenerateClient, page: MetricsPage) -> None:
    before = page.settled()
    for _ in range(3):
        with pytest.raises(Refused):
            client.generate(text_input="Hello", temperature=-1)
    with pytest.raises(Refused):
        client.generate(text_input="Hello", max_tokens=4000, ignore_eos=True, deadline_ms=300)
    client.generate(text_input="one, two,", stop="e", sampling_parameters=sampling(max_tokens=8))
    moved = Counter(changes(before, page.settled()))
    assert moved["folio_rejections_total{reason=invalidargument}"] == 3
    assert moved["folio_requests_finished_total{finish_reason=cancelled}"] == 1
    assert moved["folio_requests_finished_total{finish_reason=stop}"] == 1
    assert moved["folio_end_to_end_seconds_count{}"] == 2


def test_gauges_say_what_stats_says(client: GenerateClient, page: MetricsPage) -> None:
    client.generate(text_input=LONG_TEXT, session_id="metrics", sampling_parameters=sampling(max_tokens=1))
    values, stats = page.settled(), client.operation("stats")
    pages = {(kind, state): count for kind, states in stats["pages"].items() for state, count in states.items()}
    assert {key: values[f"folio_pages{{kind={key[0]},state={key[1]}}}"] for key in pages} == pages
    assert values["folio_sessions{}"] == stats["sessions"] > 0
    assert values["kv_cache_memory_usage_bytes{}"] == stats["memory_usage_bytes"] > 0
    assert values["kv_cache_memory_limit_bytes{}"] == stats["memory_limit_bytes"]
    assert 0 < values["folio_stored_bytes{}"] < values["folio_logical_bytes{}"]
    assert values["folio_requests_running{}"] == values["folio_requests_waiting{}"] == 0
    client.operation("close", session_id="metrics")


def test_nothing_was_compiled_after_the_start(client: GenerateClient, page: MetricsPage) -> None:
    client.generate(text_input=LONG_TEXT * 5, sampling_parameters=sampling(max_tokens=2), n=3)
    assert page.settled()["folio_recompilations_total{}"] == 0


def test_other_names_only_when_asked_for(page: MetricsPage) -> None:
    assert not [family.name for family in page.families() if family.name.startswith("vllm:")]
