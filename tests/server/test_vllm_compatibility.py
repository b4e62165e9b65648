"""What clients of vllm_backend send and read: its documented inputs, outputs and defaults."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
import tritonclient.grpc.aio

from tests.server.generate_client import sampling
from tests.server.grpc_stream import MODEL, Refused, tensor
from tests.server.vllm_interface import INPUTS, OUTPUTS, PROMPT, RETURNS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tests.server.generate_client import GenerateClient
    from tests.server.grpc_stream import Value
    from tests.server.running_server import RunningServer


def test_declares_the_documented_inputs_and_outputs(server: RunningServer) -> None:
    with tritonclient.grpc.InferenceServerClient(server.grpc_address) as grpc:
        metadata = grpc.get_model_metadata(MODEL, as_json=True)
        config = grpc.get_model_config(MODEL, as_json=True)["config"]
    assert INPUTS.items() <= {tensor["name"]: tensor["datatype"] for tensor in metadata["inputs"]}.items()
    assert OUTPUTS.items() <= {tensor["name"]: tensor["datatype"] for tensor in metadata["outputs"]}.items()
    assert config["model_transaction_policy"] == {"decoupled": True}
    assert all(tensor["optional"] for tensor in config["input"])


def test_the_documented_curl_command_works(client: GenerateClient) -> None:
    answer = client.generate(text_input=PROMPT, parameters={"stream": False, "temperature": 0})
    assert answer["text_output"].startswith(f"{PROMPT} Paris")
    assert answer.keys() == {"model_name", "model_version", "num_cached_tokens", "text_output"}


def test_default_is_16_tokens(client: GenerateClient) -> None:
    answer = client.generate(text_input=PROMPT, temperature=0, ignore_eos=True, **RETURNS)
    assert (answer["num_output_tokens"], answer["finish_reason"]) == (16, "length")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, f"{PROMPT} Paris"),
        ({"exclude_input_in_output": False}, f"{PROMPT} Paris"),
        ({"exclude_input_in_output": True}, " Paris"),
    ],
)
def test_prompt_is_echoed_unless_excluded(client: GenerateClient, given: dict[str, bool], text: str) -> None:
    fields = {"text_input": PROMPT, "sampling_parameters": sampling(max_tokens=1)}
    assert client.generate(**fields, **given)["text_output"] == text


@pytest.mark.parametrize("given", [{}, {"exclude_input_in_output": True}])
def test_deltas_are_the_text_without_the_prompt(client: GenerateClient, given: dict[str, bool]) -> None:
    fields: dict[str, Any] = {"text_input": PROMPT, "sampling_parameters": sampling(max_tokens=6)}
    whole = client.generate(**fields)["text_output"]
    deltas = [event["text_output"] for event in client.generate_stream(**fields, stream=True, **given)]
    responses = client.infer({**fields, "stream": True, **given})
    assert len(deltas) == 6
    assert PROMPT + "".join(deltas) == whole
    assert [response.text for response in responses] == deltas
    assert [response.is_final for response in responses] == [False] * 5 + [True]


def test_generate_stream_without_stream_is_one_event(client: GenerateClient) -> None:
    fields = {"text_input": PROMPT, "sampling_parameters": sampling(max_tokens=2)}
    assert client.generate_stream(**fields) == [client.generate(**fields)]


def test_streaming_the_prompt_is_refused(client: GenerateClient) -> None:
    fields: dict[str, Value] = {"text_input": PROMPT, "stream": True, "exclude_input_in_output": False}
    sentence = "When streaming, `exclude_input_in_output` = False is not allowed."
    with pytest.raises(Refused, match=sentence):
        client.generate_stream(**fields)
    with pytest.raises(Refused, match=sentence) as refusal:
        client.infer(fields)
    assert refusal.value.details["field"] == "exclude_input_in_output"


def test_values_of_sampling_parameters_may_be_strings(client: GenerateClient) -> None:
    values = {"temperature": 0.8, "top_p": 0.95, "top_k": 40, "max_tokens": 5, "seed": 7, "ignore_eos": True}
    words = {name: str(value) for name, value in values.items()}
    answers = [
        client.generate(text_input=PROMPT, sampling_parameters=json.dumps(values)),
        client.generate(text_input=PROMPT, sampling_parameters=json.dumps(words)),
        client.generate(text_input=PROMPT, parameters=words),
        client.generate(text_input=PROMPT, **values),
    ]
    assert len({answer["text_output"] for answer in answers}) == 1


def test_neutral_values_of_what_is_not_supported_are_accepted(client: GenerateClient) -> None:
    neutral = {"early_stopping": False, "length_penalty": "1.0", "use_beam_search": "false", "best_of": 1}
    fields = {"text_input": PROMPT, "sampling_parameters": sampling(max_tokens=1, **neutral)}
    assert client.generate(**fields)["text_output"] == f"{PROMPT} Paris"
    with pytest.raises(Refused, match="use_beam_search"):
        client.generate(text_input=PROMPT, use_beam_search=True)


@pytest.mark.parametrize("stream", [False, True])
def test_sample_client_sends_many_prompts_over_one_stream(server: RunningServer, stream: bool) -> None:
    """As vllm_backend's own sample client does: asyncio, parameters both as a tensor and as request parameters."""
    prompts = [PROMPT, "One, two, three,", "Hello! My name is"]
    texts, errors = asyncio.run(_sample_client(server.grpc_address, prompts, stream))
    assert errors == []
    assert texts.keys() == {"0", "1", "2"}
    for request_id, prompt in enumerate(prompts):
        pieces = texts[str(request_id)]
        assert len(pieces) == (3 if stream else 1)
        assert "".join(pieces).startswith(prompt) != stream
    assert "".join(texts["0"]).removeprefix(PROMPT).startswith(" Paris.")


async def _sample_client(address: str, prompts: list[str], stream: bool) -> tuple[dict[str, list[str]], list[str]]:
    """Texts by request id, and errors."""
    texts: dict[str, list[str]] = {}
    errors: list[str] = []
    async with tritonclient.grpc.aio.InferenceServerClient(address) as grpc:
        async for result, error in grpc.stream_infer(_sample_requests(prompts, stream)):
            if error is not None:
                errors.append(str(error))
                continue
            pieces = texts.setdefault(result.get_response().id, [])
            pieces += [value.decode() for value in result.as_numpy("text_output")]
    return texts, errors


async def _sample_requests(prompts: list[str], stream: bool) -> AsyncIterator[Mapping[str, Any]]:
    parameters = {"temperature": "0", "top_p": "1", "max_tokens": "3"}
    for request_id, prompt in enumerate(prompts):
        fields: dict[str, Value] = {
            "text_input": prompt,
            "stream": stream,
            "sampling_parameters": json.dumps(parameters),
            "exclude_input_in_output": stream,
        }
        yield {
            "model_name": MODEL,
            "inputs": [tensor(name, value) for name, value in fields.items()],
            "outputs": [tritonclient.grpc.InferRequestedOutput("text_output")],
            "request_id": str(request_id),
            "parameters": parameters,
        }
