"""Generations by a real server, whole and delta by delta, over both protocols and with both clients."""

from __future__ import annotations

import math
from typing import Any

import pytest

from folio_client import InvalidArgument, Message, NotFound
from tests.client.clients import opened_client

PROMPT = "The capital of France is"
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 3}
CHAT: list[Message] = [{"role": "user", "content": "Say hi."}]


def test_generate(client: Any) -> None:
    result = client.generate(PROMPT, temperature=0, max_tokens=2)
    usage = result.usage
    assert (result.text, result.finish_reason) == (" Paris.", "length")
    assert (usage.num_prompt_tokens, usage.num_cached_tokens, usage.num_generated_tokens) == (5, 0, 2)
    assert 0 < usage.first_token_s < usage.total_s


def test_stream_adds_up_to_generate(client: Any) -> None:
    with client.stream(PROMPT, **GREEDY) as stream:
        deltas = list(stream)
    assert "".join(delta.text for delta in deltas) == stream.result.text == client.generate(PROMPT, **GREEDY).text
    assert [delta.finish_reason for delta in deltas] == [None, None, "length"]
    assert sum(delta.num_tokens for delta in deltas) == 3


def test_chat_without_a_session(client: Any) -> None:
    result = client.chat(CHAT, **GREEDY)
    assert result.text
    assert result.usage.num_prompt_tokens > 10  # the template's own words


def test_choices_and_log_probabilities(client: Any) -> None:
    with client.stream(PROMPT, n=2, seed=1, max_tokens=3, logprobs=2, cumulative_logprob=True) as stream:
        deltas = list(stream)
    assert {delta.choice for delta in deltas} == {0, 1}
    assert stream.result.usage.num_generated_tokens == sum(len(choice.logprobs) for choice in stream.result.choices)
    for index, choice in enumerate(stream.result.choices):
        assert choice.text == "".join(delta.text for delta in deltas if delta.choice == index)
        assert all(2 <= len(token) <= 3 for token in choice.logprobs)
        assert -math.inf < choice.cumulative_logprob < 0


def test_batch_shares_equal_prompts(client: Any) -> None:
    prompts = ["One, two,", PROMPT, "One, two,"]
    results = client.generate_batch(prompts, max_concurrency=2, **GREEDY)
    assert results[0] is results[2]
    assert results[1].text.startswith(" Paris")
    apart = client.generate_batch(prompts, deduplicate=False, **GREEDY)
    assert apart[0].request_id != apart[2].request_id
    assert [result.text for result in apart] == [result.text for result in results]


@pytest.mark.parametrize(
    ("options", "field", "allowed"),
    [
        ({"max_tokens": 0}, "max_tokens", "integer from 1 to 2147483647"),
        ({"sampling": {"max_token": 3}}, "max_token", None),
        ({"temperature": 9.0}, "temperature", "number from 0.0 to 2.0"),
    ],
)
def test_refusals_name_the_field(client: Any, options: Any, field: str, allowed: str | None) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        client.generate(PROMPT, **options)
    assert (refusal.value.field, refusal.value.allowed) == (field, allowed)


def test_a_model_that_is_not_there(url: str, style: str) -> None:
    with opened_client(url, style, model="none") as client:
        with pytest.raises(NotFound, match="unknown model"):
            client.generate(PROMPT)
        assert not client.is_ready()


def test_ready_and_warm(client: Any) -> None:
    client.wait_ready(10)
    assert client.is_ready()
    warm = client.warm_up(3, max_concurrency=2)
    assert (warm.num_requests, warm.is_settled) == (3, False)
    assert all(latency_s > 0 for latency_s in warm.latencies_s)
