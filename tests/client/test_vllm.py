"""A model with vllm_backend's interface behind a real server: generation works, what is Folio's own is refused."""

from __future__ import annotations

from typing import Any

import pytest

from folio_client import IncompleteResponse, ServerError, Unsupported


def test_generation_works(vllm_client: Any) -> None:
    vllm_client.wait_ready(10)
    result = vllm_client.generate("Count.", temperature=0, max_tokens=3)
    assert (result.text, result.finish_reason) == ("one two three", "stop")
    usage = result.usage
    assert (usage.num_prompt_tokens, usage.num_cached_tokens, usage.num_generated_tokens) == (2, None, 3)
    assert [answer.text for answer in vllm_client.generate_batch(["a", "b"])] == ["one two three"] * 2


def test_what_it_lacks_is_refused_by_name(vllm_client: Any) -> None:
    asked = {
        "session_id": lambda: vllm_client.session(keep=True).generate("Hi"),
        "messages": lambda: vllm_client.chat([{"role": "user", "content": "Hi"}]),
        "op": vllm_client.admin.stats,
        "request_priority": lambda: vllm_client.generate("Hi", priority=1),
    }
    for field, ask in asked.items():
        with pytest.raises(Unsupported, match=f"The model vllm has no input {field}") as refusal:
            ask()
        assert refusal.value.field == field


def test_a_refusal_is_repeated_when_the_server_says_so(vllm_client: Any, request: pytest.FixtureRequest) -> None:
    assert vllm_client.generate(f"refused 2 times in {request.node.name}").text == "one two three"


def test_an_answer_that_breaks_off_is_an_error(vllm_client: Any) -> None:
    with pytest.raises(IncompleteResponse, match="broke off after 3 characters"):
        vllm_client.generate("breaks off")


def test_an_error_behind_the_first_text(vllm_client: Any) -> None:
    with vllm_client.stream("fails") as stream:
        assert next(stream).text == "one"
        with pytest.raises(ServerError, match=r"The model has failed\."):
            next(stream)
    assert stream.result.text == "one"
