"""What a good request may look like, and what it comes to."""

from __future__ import annotations

import json

import pytest

from folio_backend.request import Message, Operation
from folio_backend.request_fields import REQUEST_FIELDS
from folio_backend.request_parser import parse_request
from tests.backend.request_inputs import LIMITS, PROMPT, TURN, booleans, generate, integers, strings


def test_a_prompt_alone_gets_vllm_backends_defaults() -> None:
    request = generate({"text_input": strings("Grüße, 世界")})
    assert request.text == "Grüße, 世界"
    assert request.messages is None
    assert (request.sampling.n, request.sampling.temperature, request.sampling.max_tokens) == (1, 1.0, 16)
    assert not request.output.stream
    assert not request.output.exclude_input
    assert not any(value for name, value in vars(request.output).items() if name != "stream")
    assert (request.request_id, request.session_id, request.session_length) == ("", None, None)
    assert (request.priority, request.deadline_ms, request.tenant) == (0, None, "default")


def test_every_field_means_the_same_as_a_tensor_and_as_a_request_parameter() -> None:
    tensors = {
        "text_input": strings("Hi"),
        "stream": booleans(True),
        "sampling_parameters": strings('{"temperature": "0", "max_tokens": 3}'),
        "exclude_input_in_output": booleans(True),
        "return_finish_reason": booleans(True),
        "return_cumulative_logprob": booleans(True),
        "return_logprobs": booleans(True),
        "return_num_input_tokens": booleans(True),
        "return_num_output_tokens": booleans(True),
        "session_id": strings("s1"),
        "session_length": integers(7),
        "request_priority": integers(-2),
        "deadline_ms": integers(500),
    }
    assert set(tensors) | {"messages", "op"} == set(REQUEST_FIELDS)
    scalars = {name: tensor.item() for name, tensor in tensors.items()}
    spelled = {name: value.decode() if isinstance(value, bytes) else str(value) for name, value in scalars.items()}
    request = generate(tensors)
    assert request == generate({}, scalars)
    assert request == generate({}, spelled)
    assert request == generate(tensors, scalars)
    assert all(vars(request.output).values())
    assert (request.sampling.temperature, request.sampling.max_tokens) == (0.0, 3)
    assert (request.session_id, request.session_length) == ("s1", 7)
    assert (request.priority, request.deadline_ms) == (-2, 500)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_tensor_of_one_element_may_have_up_to_two_dimensions(shape: tuple[int, ...]) -> None:
    inputs = {"text_input": strings("Hi").reshape(shape), "stream": booleans(True).reshape(shape)}
    request = generate(inputs)
    assert (request.text, request.output.stream) == ("Hi", True)


@pytest.mark.parametrize(
    ("stream", "exclude_input", "excluded"),
    [(None, None, False), (False, None, False), (False, True, True), (True, None, True), (True, True, True)],
)
def test_the_prompt_is_echoed_unless_streaming_or_excluded(
    stream: bool | None, exclude_input: bool | None, excluded: bool
) -> None:
    fields = {"stream": stream, "exclude_input_in_output": exclude_input}
    request = generate(PROMPT, {name: value for name, value in fields.items() if value is not None})
    assert request.output.exclude_input is excluded


def test_messages_are_read_in_order() -> None:
    chat = [{"role": "system", "content": ""}, TURN, {"role": "assistant", "content": "Grüße 🙂"}]
    request = generate({"messages": strings(json.dumps(chat))})
    assert request.text is None
    assert request.messages == (
        Message("system", ""),
        Message("user", "Hi"),
        Message("assistant", "Grüße 🙂"),
    )


def test_an_operation_comes_through_with_its_tenant() -> None:
    document = '{"op": "close", "session_id": "s1"}'
    expected = Operation("close", {"session_id": "s1"}, None, "acme")
    assert parse_request({"op": strings(document)}, {}, LIMITS, tenant="acme") == expected
    assert parse_request({}, {"op": document, "id": "r1"}, LIMITS, tenant="acme") == expected


@pytest.mark.parametrize(
    ("document", "parameters"),
    [
        (None, {"temperature": 0, "max_tokens": 5, "stop": "x"}),
        (None, {"temperature": "0.0", "max_tokens": "5", "stop": "x"}),
        ('{"temperature": "0", "max_tokens": 5}', {"stop": "x"}),
        ('{"temperature": "0", "max_tokens": 5, "stop": "x"}', {"temperature": "0", "max_tokens": 5}),
        ('{"temperature": 0, "max_tokens": 5, "stop": "x", "ignore_eos": false}', {"ignore_eos": False}),
    ],
)
def test_sampling_parameters_come_as_one_document_singly_or_both(
    document: str | None, parameters: dict[str, object]
) -> None:
    inputs = PROMPT if document is None else {**PROMPT, "sampling_parameters": strings(document)}
    sampling = generate(inputs, parameters).sampling
    assert (sampling.temperature, sampling.max_tokens, sampling.stop) == (0.0, 5, ("x",))


def test_what_front_ends_add_is_passed_over() -> None:
    added = {
        "priority": 3,
        "timeout": 1_000,
        "sequence_start": True,
        "triton_enable_empty_final_response": True,
        "binary_data_output": True,
        "X-Tenant": "someone else",
    }
    assert generate(PROMPT, added) == generate(PROMPT)


@pytest.mark.parametrize(
    ("request_id", "parameters", "expected"),
    [
        ("r1", {}, "r1"),
        ("r1", {"id": "r2"}, "r1"),
        ("", {"id": "r2"}, "r2"),
        ("", {"id": 42}, "42"),
        ("", {"id": ""}, ""),
    ],
)
def test_the_request_id_is_the_servers_or_the_parameter_of_generate(
    request_id: str, parameters: dict[str, object], expected: str
) -> None:
    assert generate(PROMPT, parameters, request_id=request_id).request_id == expected


@pytest.mark.parametrize(
    ("session_id", "correlation_id", "expected"),
    [
        ("s1", 0, "s1"),
        ("s1", 7, "s1"),
        (None, 7, "7"),
        (None, "chat", "chat"),
        (None, 0, None),
        (None, "", None),
    ],
)
def test_the_correlation_id_names_the_session_where_session_id_does_not(
    session_id: str | None, correlation_id: int | str, expected: str | None
) -> None:
    inputs = PROMPT if session_id is None else {**PROMPT, "session_id": strings(session_id)}
    assert generate(inputs, correlation_id=correlation_id).session_id == expected


def test_limits_are_inclusive() -> None:
    inputs = {
        "text_input": strings("é" * 100),
        "session_id": strings("s" * 16),
        "session_length": integers(100),
        "deadline_ms": integers(60_000),
        "request_priority": integers(-(2**31)),
    }
    assert generate(inputs).session_length == 100
    assert generate({"messages": strings(json.dumps([TURN] * 3))}).messages == (Message("user", "Hi"),) * 3
    assert generate(PROMPT, {"n": 4}).sampling.n == 4


def test_content_is_in_no_representation() -> None:
    document = json.dumps([{"role": "user", "content": "canary"}])
    for inputs in ({"text_input": strings("canary")}, {"messages": strings(document)}):
        sampling = strings(json.dumps({"stop": ["canary"]}))
        assert "canary" not in repr(generate({**inputs, "sampling_parameters": sampling}))
