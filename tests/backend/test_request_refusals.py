"""How each bad request is refused: by field, with what is allowed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from folio_backend.errors import InvalidArgument
from folio_backend.request import RequestLimits
from folio_backend.request_parser import parse_request
from tests.backend.request_inputs import PROMPT, TURN, booleans, integers, refusal, strings

BAD_TENSORS: list[tuple[dict[str, Any], str, str]] = [
    ({}, "text_input", "none of text_input, messages and op"),
    ({**PROMPT, "messages": strings(json.dumps([TURN]))}, "messages", "text_input and messages"),
    ({**PROMPT, "op": strings('{"op": "stats"}')}, "op", "text_input and op"),
    ({"op": strings('{"op": "stats"}'), "stream": booleans(True)}, "stream", "not apply to an operation"),
    ({"text_input": strings("")}, "text_input", "empty"),
    ({"text_input": strings("é" * 101)}, "text_input", "202 bytes"),
    ({"text_input": strings(b"abc\xff")}, "text_input", "not valid UTF-8 at byte 3"),
    ({"text_input": strings(b"\xed\xa0\x80")}, "text_input", "not valid UTF-8 at byte 0"),
    ({"text_input": strings("a", "b")}, "text_input", "shape [2]"),
    ({"text_input": strings()}, "text_input", "shape [0]"),
    ({"text_input": strings("a").reshape(1, 1, 1)}, "text_input", "shape [1, 1, 1]"),
    ({"text_input": integers(5)}, "text_input", "dtype int32"),
    ({"text_input": np.array([5], dtype=np.object_)}, "text_input", "type int"),
    ({"text_input": np.array([None], dtype=np.object_)}, "text_input", "type NoneType"),
    ({**PROMPT, "stream": integers(1)}, "stream", "dtype int32"),
    ({**PROMPT, "stream": strings("true")}, "stream", "dtype object"),
    ({**PROMPT, "session_length": np.array([7.0]), "session_id": strings("s")}, "session_length", "float64"),
    ({**PROMPT, "session_length": np.array([7]), "session_id": strings("s")}, "session_length", "int64"),
    ({**PROMPT, "session_length": integers(7)}, "session_length", "without a session"),
    ({**PROMPT, "session_length": integers(-1), "session_id": strings("s")}, "session_length", "is -1"),
    ({**PROMPT, "session_length": integers(101), "session_id": strings("s")}, "session_length", "is 101"),
    ({**PROMPT, "session_id": strings("")}, "session_id", "empty"),
    ({**PROMPT, "session_id": strings("s" * 17)}, "session_id", "17 bytes"),
    ({**PROMPT, "session_id": strings("a\nb")}, "session_id", "cannot be printed"),
    ({**PROMPT, "session_id": strings("a\u202eb")}, "session_id", "cannot be printed"),
    ({**PROMPT, "session_id": strings(b"\xff")}, "session_id", "not valid UTF-8"),
    ({**PROMPT, "deadline_ms": integers(0)}, "deadline_ms", "is 0"),
    ({**PROMPT, "deadline_ms": integers(60_001)}, "deadline_ms", "is 60001"),
    (
        {**PROMPT, "stream": booleans(True), "exclude_input_in_output": booleans(False)},
        "exclude_input_in_output",
        "When streaming",
    ),
    ({**PROMPT, "image": strings("x")}, "image", "no input image"),
    ({**PROMPT, "k" * 80: strings("x")}, "k" * 64, "no input"),
]


@pytest.mark.parametrize(("inputs", "field", "told"), BAD_TENSORS, ids=lambda value: repr(value)[:50])
def test_a_bad_tensor_is_refused_by_field(inputs: dict[str, Any], field: str, told: str) -> None:
    error = refusal(inputs)
    assert error.field == field
    assert told in error.sentence
    assert error.allowed


@pytest.mark.parametrize(
    ("parameters", "field", "told"),
    [
        ({"stream": "maybe"}, "stream", "no boolean"),
        ({"stream": 1}, "stream", "type int"),
        ({"deadline_ms": 1.5}, "deadline_ms", "type float"),
        ({"deadline_ms": True}, "deadline_ms", "type bool"),
        ({"deadline_ms": "1e3"}, "deadline_ms", "no integer"),
        ({"deadline_ms": "٣"}, "deadline_ms", "no integer"),
        ({"deadline_ms": 2**63}, "deadline_ms", "is 9223372036854775808"),
        ({"request_priority": 2**31}, "request_priority", "is 2147483648"),
        ({"request_priority": float("nan")}, "request_priority", "type float"),
        ({"session_id": 7}, "session_id", "type int"),
        ({"session_id": "é" * 9}, "session_id", "18 bytes"),
        ({"session_id": "\ud800"}, "session_id", "not valid UTF-8 at character 0"),
        ({"text_input": "Bye"}, "text_input", "differs between a tensor and a request parameter"),
        ({"id": "a\x7fb"}, "id", "cannot be printed"),
        ({"id": "i" * 17}, "id", "17 bytes"),
        ({"id": 1.5}, "id", "type float"),
        ({"temperature": float("nan")}, "temperature", ""),
        ({"temperature": float("inf")}, "temperature", ""),
        ({"temperature": [0]}, "temperature", "type list"),
        ({"temperature": "hot"}, "temperature", ""),
        ({"n": 5}, "n", ""),
        ({"n": 2, "session_id": "s"}, "n", "n is 2 in a session"),
        ({"no_such_key": 1}, "no_such_key", ""),
        ({"tenant": "acme"}, "tenant", ""),
        ({"k" * 80: 1}, "k" * 64, ""),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_a_bad_request_parameter_is_refused_by_field(parameters: dict[str, object], field: str, told: str) -> None:
    error = refusal(PROMPT, parameters)
    assert error.field == field
    assert told in error.sentence


def test_an_integer_too_long_to_print_is_refused_by_its_size() -> None:
    assert "16610 bits" in refusal(PROMPT, {"deadline_ms": 10**5_000}).sentence


def test_an_unknown_name_is_shown_printable_and_short() -> None:
    field = refusal(PROMPT, {"\x1b[2J" + "k" * 5_000: 1}).field
    assert field is not None
    assert field.isprintable()
    assert len(field) < 80


@pytest.mark.parametrize(
    ("document", "field", "told"),
    [
        ("", "sampling_parameters", "empty"),
        ("{", "sampling_parameters", "not valid JSON at character 1"),
        ("[]", "sampling_parameters", "type list"),
        ("null", "sampling_parameters", "type NoneType"),
        ('{"n": 1, "n": 1}', "sampling_parameters", "key twice"),
        ('{"temperature": NaN}', "sampling_parameters", "NaN"),
        ('{"temperature": -Infinity}', "sampling_parameters", "infinity"),
        ('{"temperature": 1e400}', "sampling_parameters", "too large"),
        ('{"seed": ' + "9" * 250 + "}", "sampling_parameters", "250 characters"),
        ('{"stop": ' + "[" * 50 + "]" * 50 + "}", "sampling_parameters", "nested deeper"),
        ('{"stop": "\\udc00"}', "sampling_parameters", "surrogate"),
        ('{"stop": "' + "x" * 300 + '"}', "sampling_parameters", "bytes"),
        ('{"temperature": 3}', "temperature", ""),
        ('{"stop_token_ids": [50]}', "stop_token_ids", ""),
        ('{"no_such_key": 1}', "no_such_key", ""),
        ('{"top_p": 0.5}', "top_p", "differs between sampling_parameters and a request parameter"),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_a_bad_sampling_document_is_refused_by_field(document: str, field: str, told: str) -> None:
    error = refusal({**PROMPT, "sampling_parameters": strings(document)}, {"top_p": 0.25})
    assert error.field is not None
    assert error.field.startswith(field)
    assert told in error.sentence


@pytest.mark.parametrize(
    ("document", "field", "told"),
    [
        ("[", "messages", "not valid JSON"),
        ("{}", "messages", "type dict"),
        ("[]", "messages", "0 entries"),
        (json.dumps([TURN] * 4), "messages", "4 entries"),
        ('["hello"]', "messages[0]", "no message"),
        ('[{"role": "user"}]', "messages[0]", "no message"),
        ('[{"role": "user", "content": "a", "name": "bob"}]', "messages[0]", "no message"),
        (json.dumps([TURN, {"role": "root", "content": "a"}]), "messages[1].role", "unknown"),
        ('[{"role": ["user"], "content": "a"}]', "messages[0].role", "unknown"),
        ('[{"role": "user", "content": ["a"]}]', "messages[0].content", "type list"),
        ('[{"role": "user", "content": null}]', "messages[0].content", "type NoneType"),
        ('[{"role": "user", "content": "\\ud83d"}]', "messages", "surrogate"),
        (json.dumps([{"role": "user", "content": "x" * 200}]), "messages", "bytes"),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_bad_messages_are_refused_by_place(document: str, field: str, told: str) -> None:
    error = refusal({"messages": strings(document)})
    assert error.field == field
    assert told in error.sentence
    assert error.allowed


@pytest.mark.parametrize("nesting", ["[", '{"a":'])
def test_json_nested_a_hundred_thousand_deep_is_refused(nesting: str) -> None:
    limits = RequestLimits(max_text_bytes=10**6, max_model_tokens=1, vocabulary_size=1, max_choices=1)
    with pytest.raises(InvalidArgument, match="nested deeper"):
        parse_request({"messages": strings(nesting * 100_000)}, {}, limits)


@pytest.mark.parametrize(
    ("others", "field"),
    [
        ({"request_id": "r" * 17}, "request_id"),
        ({"request_id": "a\x00b"}, "request_id"),
        ({"correlation_id": "c" * 17}, "sequence_id"),
        ({"correlation_id": 10**17}, "sequence_id"),
    ],
)
def test_bad_ids_from_the_server_are_refused(others: dict[str, Any], field: str) -> None:
    assert refusal(PROMPT, **others).field == field
