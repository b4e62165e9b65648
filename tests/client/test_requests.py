"""What is sent: fields that the wire carries unharmed, or a refusal that names the field."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from folio_client import BodyTooLarge, GenerateOptions, InvalidArgument
from folio_client.grpc_messages import generate_message
from folio_client.http_messages import MAX_JSON_BYTES, generate_body
from folio_client.requests import GenerateRequest, operation_document, step_tensors
from folio_client.wire import GenerateCall
from tests.client.scripted_transport import INPUTS


def fields(options: GenerateOptions, prompt: Any = "Hi", timeout_s: float = 2.0) -> dict[str, Any]:
    return dict(GenerateRequest.of(prompt, options, None).call("m", INPUTS, timeout_s).fields)


def test_sampling_parameters_travel_as_one_document() -> None:
    found = fields({"max_tokens": 5, "seed": 2**40, "stop": ["\n"], "sampling": {"top_k": 3}})
    parameters = {"top_k": 3, "max_tokens": 5, "seed": 2**40, "stop": ["\n"]}
    assert json.loads(found["sampling_parameters"]) == parameters
    assert found["stream"] is True
    assert "seed" not in found


def test_the_deadline_is_told_in_whole_milliseconds() -> None:
    assert fields({}, timeout_s=0.0001)["deadline_ms"] == 1
    assert fields({}, timeout_s=1.2341)["deadline_ms"] == 1235
    assert fields({}, timeout_s=1e9)["deadline_ms"] == 86_400_000


def test_messages_travel_as_json_in_their_own_script() -> None:
    messages = [{"role": "user", "content": "你好 \n"}]
    found = fields({}, messages)
    assert json.loads(found["messages"]) == messages
    assert "你好" in found["messages"]
    assert "text_input" not in found


@pytest.mark.parametrize(
    ("prompt", "options", "field"),
    [
        ("\ud800", {}, "text_input"),
        ([{"role": "user", "content": "\ud800"}], {}, "messages"),
        ([{"role": "user", "content": b"Hi"}], {}, "messages"),
        ("Hi", {"priority": 2**31}, "request_priority"),
        ("Hi", {"priority": 1.5}, "request_priority"),
        ("Hi", {"temperature": float("nan")}, "sampling_parameters"),
        ("Hi", {"sampling": {"x": object()}}, "sampling_parameters"),
    ],
)
def test_what_the_wire_would_damage_is_refused(prompt: Any, options: Any, field: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        fields(options, prompt)
    assert refusal.value.field == field


def test_an_http_body_that_would_crash_the_server_is_refused() -> None:
    frame = len(generate_body(GenerateCall("m", {"text_input": ""}, "", 1)))
    largest = GenerateCall("m", {"text_input": "x" * (MAX_JSON_BYTES - frame)}, "", 1)
    assert len(generate_body(largest)) == MAX_JSON_BYTES < 4_000_000
    too_large = GenerateCall("m", {"text_input": largest.fields["text_input"] + "x"}, "", 1)  # type: ignore[operator]
    with pytest.raises(BodyTooLarge, match=r"4,000,000 bytes.*grpc://") as refusal:
        generate_body(too_large)
    assert (refusal.value.size_bytes, refusal.value.limit_bytes) == (4_000_000, MAX_JSON_BYTES)
    assert len(generate_message(too_large).raw_input_contents[0]) > MAX_JSON_BYTES - frame


def test_steps_get_a_batch_dimension() -> None:
    tokens = {name: np.zeros((3, 2, 4), np.float32)[::-1] for name in ("query", "key", "value")}
    tensors = step_tensors("m", "s", tokens, 7, 1.0).tensors
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "session_id": (1, 1),
        "query": (1, 3, 2, 4),
        "key": (1, 3, 2, 4),
        "value": (1, 3, 2, 4),
        "position": (1, 1),
    }
    assert all(tensor.flags.c_contiguous for tensor in tensors.values())
    assert "position" not in step_tensors("m", "s", tokens, None, 1.0).tensors


def test_the_admin_token_travels_inside_the_operation() -> None:
    assert json.loads(operation_document("stats", {}, None)) == {"op": "stats"}
    assert json.loads(operation_document("close", {"session_id": "s"}, "t")) == {
        "op": "close",
        "session_id": "s",
        "admin_token": "t",
    }
