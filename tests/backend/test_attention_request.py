"""What an attention model refuses, by field and bound, and that a refusal changes nothing."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from folio_backend.errors import ErrorCode, FolioError, InvalidArgument, NotFound
from folio_backend.finished_request import FinishedRequest
from folio_backend.metric_definitions import REJECTIONS
from folio_backend.metrics import Series
from folio_backend.request_timings import Outcome
from folio_backend.server_request import ServerRequest, strings
from tests.backend.attention_inputs import (
    History,
    answer,
    expected_output,
    history,
    num_pages,
    operate,
    serving,
    sizes,
)

TOLD = history(80)
NEXT = TOLD.part(70, 75)
MISSING = object()


def with_number(name: str, number: float) -> Any:
    """The next step's tensor of that name with one number replaced."""
    tensor = np.array(NEXT.inputs()[name])
    tensor[0, 2, 1, 7] = number
    return tensor


def changed(changes: dict[str, Any]) -> ServerRequest:
    """The next step with other inputs; a dict under "parameters" goes there."""
    parameters = changes.pop("parameters", {})
    inputs = dict(NEXT.step("s", 70).inputs) | changes
    return ServerRequest({name: tensor for name, tensor in inputs.items() if tensor is not MISSING}, parameters)


def zeros(*shape: int, dtype: str = "float32") -> Any:
    return np.zeros(shape, dtype=dtype)


def document(**members: object) -> Any:
    return strings([json.dumps(members)]).reshape(1, 1)


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"query": with_number("query", np.nan)}, "query", "numbers from -1e+18 to 1e+18"),
    ({"key": with_number("key", np.inf)}, "key", "numbers from"),
    ({"value": with_number("value", -np.inf)}, "value", "numbers from"),
    ({"value": with_number("value", 70_000)}, "value", "numbers from -65504 to 65504"),
    ({"query": zeros(1, 5, 3, 64)}, "query", "[1, T, 4, 64]"),
    ({"key": zeros(1, 5, 4, 64)}, "key", "[1, T, 2, 64]"),
    ({"value": zeros(1, 5, 2, 128)}, "value", "[1, T, 2, 64]"),
    ({"key": zeros(5, 2, 64)}, "key", "[1, T, 2, 64]"),
    ({"query": zeros(2, 5, 4, 64)}, "query", "[1, T, 4, 64]"),
    ({"query": zeros(1, 5, 4, 64, dtype="float64")}, "query", "float32"),
    ({"key": zeros(1, 5, 2, 64, dtype="float16")}, "key", "float32"),
    ({"value": zeros(1, 5, 2, 64, dtype="int32")}, "value", "float32"),
    ({"query": zeros(1, 0, 4, 64)}, "query", "T from 1 to 300"),
    ({"query": zeros(1, 301, 4, 64)}, "query", "T from 1 to 300"),
    ({"key": zeros(1, 4, 2, 64)}, "key", "5 tokens"),
    ({"value": zeros(1, 6, 2, 64)}, "value", "5 tokens"),
    ({"query": MISSING}, "query", "float32 [1, T, 4, 64]"),
    ({"key": MISSING}, "key", "float32"),
    ({"value": MISSING}, "value", "float32"),
    (history(231).inputs(), "query", "up to 300 tokens"),
    ({"position": zeros(1, 1, dtype="int32")}, "position", "70"),
    ({"position": zeros(1, 1, dtype="int32") + 71}, "position", "70"),
    ({"position": zeros(1, 1, dtype="int32") - 1}, "position", "0 to 300"),
    ({"position": zeros(1, 1, dtype="int64")}, "position", "INT32"),
    ({"position": zeros(2, dtype="int32")}, "position", "shape [1]"),
    ({"session_id": MISSING}, "session_id", "1 to 256 bytes"),
    ({"session_id": strings([""])}, "session_id", "1 to 256 bytes"),
    ({"session_id": strings(["x" * 257])}, "session_id", "1 to 256 bytes"),
    ({"session_id": np.array([b"\xff"], dtype=object)}, "session_id", "UTF-8"),
    ({"session_id": strings(["s", "t"])}, "session_id", "shape [1]"),
    ({"session_id": zeros(1)}, "session_id", "STRING"),
    ({"session_id": strings(["other"])}, "session_id", "position 0"),
    ({"text_input": strings(["Hi"])}, "text_input", "session_id"),
    ({"parameters": {"temperature": 1}}, "temperature", "session_id"),
    ({"parameters": {"session_id": "other"}}, "session_id", "one value"),
    ({"op": document(op="stats")}, "session_id", "op alone"),
]


@pytest.mark.parametrize(("changes", "field", "allowed"), REFUSED)
def test_a_bad_step_is_refused_by_field_and_bound_and_changes_nothing(
    changes: dict[str, Any], field: str, allowed: str
) -> None:
    with serving(codec="int8", max_history_tokens=300) as service:
        before = answer(service, TOLD.part(0, 70).step("s"))["output"]
        held = sizes(service)
        with pytest.raises(FolioError) as refusal:
            answer(service, changed(dict(changes)))
        assert refusal.value.code in {ErrorCode.INVALID_ARGUMENT, ErrorCode.NOT_FOUND}
        assert refusal.value.field == field
        assert allowed in str(refusal.value.allowed)
        assert sizes(service) == held
        after = answer(service, TOLD.part(70, 80).step("s", 70))["output"]
    output = np.concatenate([before[0], after[0]])
    np.testing.assert_allclose(output, expected_output(TOLD, "int8"), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"op": "fork", "session_id": "s", "new_session_id": "t"}, "op"),
        ({"op": "truncate", "session_id": "s", "num_tokens": 1}, "op"),
        ({"op": "cancel", "session_id": "s"}, "op"),
        ({"op": "swim"}, "op"),
        ({"op": "close"}, "session_id"),
        ({"op": "close", "session_id": "nobody"}, "session_id"),
    ],
)
def test_operations_without_meaning_here_are_refused_by_name(members: dict[str, object], field: str) -> None:
    with serving() as service:
        answer(service, TOLD.step("s"))
        held = sizes(service)
        with pytest.raises(FolioError) as refusal:
            operate(service, **members)
        assert refusal.value.field == field
        assert sizes(service) == held


def test_what_front_ends_add_is_passed_over() -> None:
    with serving() as service:
        request = NEXT.step("s", 0, priority=1, sequence_id=4, triton_final_response=True)
        assert answer(service, request)["length"].item() == 5


def test_tensors_that_cannot_be_written_to_are_read() -> None:
    read_only = History(*(np.array(tensor) for tensor in (NEXT.query, NEXT.key, NEXT.value)))
    for tensor in (read_only.query, read_only.key, read_only.value):
        tensor.setflags(write=False)
    with serving() as service:
        assert answer(service, read_only.step("s"))["length"].item() == 5


def test_a_step_is_copied_and_does_not_change_with_the_clients_tensor() -> None:
    first = History(*(np.array(tensor) for tensor in (NEXT.query, NEXT.key, NEXT.value)))
    with serving() as service:
        answer(service, first.step("s"))
        first.key[:], first.value[:] = 0, 0
        output = answer(service, TOLD.part(75, 80).step("s"))["output"][0]
    np.testing.assert_allclose(output, expected_output(TOLD.part(70, 80), "none")[5:], rtol=0, atol=1e-4)


def test_the_largest_numbers_accepted_give_finite_answers() -> None:
    largest = history(100)
    for tensor in (largest.query, largest.key, largest.value):
        np.copysign(1e18, tensor, out=tensor)
    with serving() as service:
        assert np.isfinite(answer(service, largest.step("s"))["output"]).all()


def test_refusals_are_counted_by_reason_and_hold_no_content() -> None:
    with serving() as service:
        answer(service, TOLD.step("a-secret-name"))
        with pytest.raises(InvalidArgument) as refusal:
            answer(service, TOLD.step("a-secret-name", 3))
        with pytest.raises(InvalidArgument):
            answer(service, changed({"key": with_number("key", np.nan)}))
        totals = service.recorder.drain().totals
        assert {series: count for series, count in totals.items() if series.definition is REJECTIONS} == {
            Series(REJECTIONS, ("position",)): 1,
            Series(REJECTIONS, ("invalidargument",)): 1,
        }
        assert "secret" not in refusal.value.text()
        assert num_pages(service, "held") == 2


def test_an_operation_that_finds_nothing_is_an_answer_and_no_rejection() -> None:
    told: list[FinishedRequest] = []
    with serving(observe=told.append) as service:
        with pytest.raises(NotFound):
            operate(service, op="close", session_id="a-secret-name")
        answer(service, TOLD.step("a-secret-name"))
        assert {series.definition for series in service.recorder.drain().totals} == set()
    assert [(each.operation, each.outcome, each.code) for each in told] == [
        ("close", Outcome.FAILED, "NOT_FOUND"),
        (None, Outcome.OK, None),
    ]
    assert told[1].counts == {"num_tokens": 80, "num_history_tokens": 80}
    assert "secret" not in repr(told)
