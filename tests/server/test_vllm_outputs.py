"""vllm_backend's additional outputs: their types, shapes and what they say, and the text itself piece by piece."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.server.generate_client import sampling
from tests.server.vllm_interface import OUTPUTS, PROMPT, RETURNS

if TYPE_CHECKING:
    from tests.server.generate_client import GenerateClient
    from tests.server.grpc_stream import Response, Value

NUM_TOKENS = 3
# float32 sums of float32 terms
TOLERANCE = 1e-4


def request(stream: bool = False, **parameters: Any) -> dict[str, Value]:
    """A request for every additional output."""
    return {
        "text_input": PROMPT,
        "stream": stream,
        "exclude_input_in_output": True,
        "sampling_parameters": sampling(**{"max_tokens": NUM_TOKENS, **parameters}),
        **RETURNS,
    }


def logprobs(response: Response, choice: int = 0) -> list[dict[str, dict[str, Any]]]:
    """One entry per token of a choice: token id to what is known of it."""
    entries = json.loads(response.texts("logprobs")[choice])
    assert isinstance(entries, list)
    return entries


@pytest.mark.parametrize("name", [name for name in OUTPUTS if name != "text_output"])
def test_each_comes_only_when_asked_for(client: GenerateClient, name: str) -> None:
    fields = {"text_input": PROMPT, "sampling_parameters": sampling(max_tokens=1)}
    returns = {key: key == f"return_{name}" for key in RETURNS}
    (response,) = client.infer({**fields, **returns})
    assert response.outputs.keys() == {"text_output", "num_cached_tokens", name}


@pytest.mark.parametrize("stream", [False, True])
def test_types_and_shapes(client: GenerateClient, stream: bool) -> None:
    responses = client.infer(request(stream))
    assert len(responses) == (NUM_TOKENS if stream else 1)
    for response in responses:
        assert OUTPUTS.items() <= response.data_types.items()
        assert all(response.outputs[name].shape == (1,) for name in OUTPUTS)


@pytest.mark.parametrize("stream", [False, True])
def test_finish_reason_and_counts(client: GenerateClient, stream: bool) -> None:
    responses = client.infer(request(stream))
    reasons = [response.texts("finish_reason") for response in responses]
    assert reasons == [["None"]] * (len(responses) - 1) + [["length"]]
    assert sum(int(response.outputs["num_output_tokens"].item()) for response in responses) == NUM_TOKENS
    assert {response.outputs["num_input_tokens"].item() for response in responses} == {5}


@pytest.mark.parametrize("stream", [False, True])
def test_num_cached_tokens_comes_unasked_with_the_first_response(client: GenerateClient, stream: bool) -> None:
    responses = client.infer({"text_input": PROMPT, "stream": stream, "sampling_parameters": sampling(max_tokens=3)})
    assert ["num_cached_tokens" in response.outputs for response in responses] == [True] + [False] * 2 * stream
    assert responses[0].data_types["num_cached_tokens"] == "UINT32"
    assert responses[0].outputs["num_cached_tokens"].tolist() == [0]


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_are_those_of_the_new_tokens(client: GenerateClient, stream: bool) -> None:
    total = 0.0
    for response in client.infer(request(stream, logprobs=2)):
        entries = logprobs(response)
        assert len(entries) == response.outputs["num_output_tokens"].item()
        best = [next(known for known in entry.values() if known["rank"] == 1) for entry in entries]
        assert "".join(known["decoded_token"] for known in best) == response.text
        total += sum(known["logprob"] for known in best)
        assert response.outputs["cumulative_logprob"].item() == pytest.approx(total, abs=TOLERANCE)
        for entry in entries:
            assert sorted(known["rank"] for known in entry.values()) == [1, 2]
            assert all(known.keys() == {"logprob", "rank", "decoded_token"} for known in entry.values())


def test_logprobs_without_a_number_are_null(client: GenerateClient) -> None:
    (response,) = client.infer(request())
    assert response.texts("logprobs") == ["null"]


def test_logprobs_of_zero_are_those_of_the_sampled_tokens(client: GenerateClient) -> None:
    (response,) = client.infer(request(logprobs="0"))
    assert [len(entry) for entry in logprobs(response)] == [1] * NUM_TOKENS


@pytest.mark.parametrize("stream", [False, True])
def test_two_choices(client: GenerateClient, stream: bool) -> None:
    responses = client.infer(request(stream, n=2, temperature=1.0, seed=3, logprobs=1, ignore_eos=True))
    per_choice = OUTPUTS.keys() - {"num_input_tokens"}
    for response in responses:
        assert all(response.outputs[name].shape == (2,) for name in per_choice)
        assert response.outputs["num_input_tokens"].shape == (1,)
    texts = ["".join(pieces) for pieces in zip(*(response.texts() for response in responses), strict=True)]
    assert texts[0] != texts[1]
    counts = sum(response.outputs["num_output_tokens"].astype(int) for response in responses)
    assert np.array_equal(counts, [NUM_TOKENS] * 2)
    assert responses[-1].texts("finish_reason") == ["length"] * 2


def test_a_stop_string_ends_the_text_before_it(client: GenerateClient) -> None:
    fields = request(stream=True, max_tokens=16, stop="ve, s")
    fields["text_input"] = "one, two, three, four,"
    responses = client.infer(fields)
    assert "".join(response.text for response in responses) == " fi"
    assert responses[-1].texts("finish_reason") == ["stop"]
    fields["sampling_parameters"] = sampling(max_tokens=16, stop=["ve, s"], include_stop_str_in_output=True)
    assert "".join(response.text for response in client.infer(fields)) == " five, s"


def test_a_stop_token_ends_with_an_empty_delta(client: GenerateClient) -> None:
    (plain,) = client.infer(request(logprobs=0))
    (second,) = logprobs(plain)[1]
    responses = client.infer(request(stream=True, stop_token_ids=[int(second)]))
    assert [response.text for response in responses] == [" Paris", ""]
    assert responses[-1].texts("finish_reason") == ["stop"]
    assert responses[-1].outputs["num_output_tokens"].tolist() == [1]


@pytest.mark.parametrize("prompt", ["🙂🚀🙂🚀🙂🚀🙂🚀", "你好世界。你好世界。你好世界。"])
def test_no_character_is_cut(client: GenerateClient, prompt: str) -> None:
    # Nine tokens end where a character does.
    fields = {**request(stream=True, max_tokens=9), "text_input": prompt}
    responses = client.infer(fields)
    deltas = [response.text for response in responses]  # fails where a delta is not UTF-8
    assert not any("\N{REPLACEMENT CHARACTER}" in delta for delta in deltas)
    assert any(response.outputs["num_output_tokens"].item() > len(response.text) for response in responses)
    (whole,) = client.infer({**fields, "stream": False})
    assert "".join(deltas) == whole.text
    assert [event["text_output"] for event in client.generate_stream(**fields)] == deltas
