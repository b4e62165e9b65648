"""Which operations there are, what they accept, and who may call them."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from folio_backend.errors import InvalidArgument
from folio_backend.operations import OPERATIONS, check_admin, parse_operation
from folio_backend.request import Operation, RequestLimits

LIMITS = RequestLimits(max_text_bytes=1_000, max_model_tokens=100, vocabulary_size=50, max_choices=4, max_id_bytes=16)
ARGUMENTS = ["session_id", "new_session_id", "request_id", "num_tokens"]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=6,
)


def parsed_or_refused(document: str) -> Operation | InvalidArgument:
    try:
        return parse_operation(document, LIMITS)
    except InvalidArgument as refusal:
        return refusal


@pytest.mark.parametrize(
    ("members", "arguments"),
    [
        ({"op": "stats"}, {}),
        ({"op": "health"}, {}),
        ({"op": "sessions"}, {}),
        ({"op": "close", "session_id": "s1"}, {"session_id": "s1"}),
        ({"op": "close", "session_id": "gespräch 1"}, {"session_id": "gespräch 1"}),
        (
            {"op": "fork", "session_id": "s1", "new_session_id": "s2"},
            {"session_id": "s1", "new_session_id": "s2"},
        ),
        ({"op": "truncate", "session_id": "s1", "num_tokens": 0}, {"session_id": "s1", "num_tokens": 0}),
        (
            {"op": "truncate", "session_id": "s1", "num_tokens": "100"},
            {"session_id": "s1", "num_tokens": 100},
        ),
        ({"op": "cancel", "request_id": "r1"}, {"request_id": "r1"}),
        ({"op": "cancel", "session_id": "s1"}, {"session_id": "s1"}),
    ],
)
def test_every_operation_accepts_its_arguments(members: dict[str, object], arguments: dict[str, object]) -> None:
    operation = parse_operation(json.dumps(members), LIMITS, tenant="acme")
    assert operation == Operation(str(members["op"]), arguments, None, "acme")


def test_the_issues_operations_are_all_there() -> None:
    assert set(OPERATIONS) == {"stats", "health", "sessions", "close", "fork", "truncate", "cancel"}


@pytest.mark.parametrize(
    ("document", "field", "told"),
    [
        ("", "op", "not valid JSON"),
        ("stats", "op", "not valid JSON at character 0"),
        ('"stats"', "op", "type str"),
        ('[{"op": "stats"}]', "op", "type list"),
        ("{}", "op", 'no key "op"'),
        ('{"op": 5}', "op", "type int"),
        ('{"op": null}', "op", 'no key "op"'),
        ('{"op": "restart"}', "op", "names no operation (7 characters)"),
        ('{"op": "stats", "op": "health"}', "op", "a key twice"),
        ('{"op": "stats", "session_id": "s1"}', "session_id", "no argument session_id"),
        ('{"op": "close"}', "session_id", "needs session_id"),
        ('{"op": "close", "session_id": ""}', "session_id", "empty"),
        ('{"op": "close", "session_id": 7}', "session_id", "type int"),
        ('{"op": "close", "session_id": "a\\u0000b"}', "session_id", "cannot be printed"),
        ('{"op": "close", "session_id": "\\ud800"}', "op", "surrogate"),
        ('{"op": "close", "session_id": "ssssssssssssssssé"}', "session_id", "18 bytes"),
        ('{"op": "fork", "session_id": "s1"}', "new_session_id", "needs new_session_id"),
        ('{"op": "truncate", "session_id": "s1"}', "num_tokens", "needs num_tokens"),
        ('{"op": "truncate", "session_id": "s1", "num_tokens": -1}', "num_tokens", "is -1, out of range"),
        ('{"op": "truncate", "session_id": "s1", "num_tokens": 101}', "num_tokens", "is 101, out of range"),
        ('{"op": "truncate", "session_id": "s1", "num_tokens": 1.5}', "num_tokens", "type float"),
        ('{"op": "truncate", "session_id": "s1", "num_tokens": true}', "num_tokens", "type bool"),
        ('{"op": "truncate", "session_id": "s1", "num_tokens": NaN}', "op", "NaN"),
        ('{"op": "truncate", "session_id": "s1", "num_tokens": 1e999}', "op", "too large"),
        (
            '{"op": "truncate", "session_id": "s1", "num_tokens": ' + "9" * 5_000 + "}",
            "op",
            "5000 characters",
        ),
        ('{"op": "cancel"}', "request_id", "0 of 2"),
        ('{"op": "cancel", "request_id": "r", "session_id": "s"}', "request_id", "2 of 2"),
        ('{"op": "stats", "admin_token": 5}', "admin_token", "type int"),
        ('{"op": "stats", "x": ' + "[" * 100_000 + "]" * 100_000 + "}", "op", "nested deeper"),
        ('{"op": "stats", "x": ' + "[" * 40 + "]" * 40 + "}", "op", "nested deeper"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_bad_operation_is_refused_by_field(document: str, field: str, told: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        parse_operation(document, LIMITS)
    assert refusal.value.field == field
    assert told in refusal.value.sentence
    assert refusal.value.allowed


def test_an_unknown_argument_is_shown_printable_and_cut() -> None:
    document = json.dumps({"op": "stats", "\n" + "k" * 200: 1})
    with pytest.raises(InvalidArgument) as refusal:
        parse_operation(document, LIMITS)
    assert refusal.value.field == "?" + "k" * 63


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(sorted(OPERATIONS)) | JSON_VALUES,
    st.dictionaries(st.sampled_from([*ARGUMENTS, "admin_token", "x"]), JSON_VALUES, max_size=4),
)
def test_any_json_is_an_operation_or_refused(name: object, members: dict[str, object]) -> None:
    members["op"] = name
    outcome = parsed_or_refused(json.dumps(members))
    assert outcome.field if isinstance(outcome, InvalidArgument) else outcome.name in OPERATIONS


def test_sessions_needs_the_right_token() -> None:
    with pytest.raises(InvalidArgument, match="sessions needs the admin token") as refusal:
        check_admin(parse_operation('{"op": "sessions"}', LIMITS), "s3cret")
    assert refusal.value.field == "admin_token"
    with pytest.raises(InvalidArgument, match="sessions needs the admin token"):
        check_admin(parse_operation('{"op": "sessions", "admin_token": "s3cre"}', LIMITS), "s3cret")
    check_admin(parse_operation('{"op": "sessions", "admin_token": "s3cret"}', LIMITS), "s3cret")


def test_a_token_beyond_ascii_is_compared() -> None:
    check_admin(parse_operation('{"op": "sessions", "admin_token": "gehéim"}', LIMITS), "gehéim")


@pytest.mark.parametrize("token", [None, ""])
def test_no_token_is_needed_where_none_is_set(token: str | None) -> None:
    check_admin(parse_operation('{"op": "sessions"}', LIMITS), token)


@pytest.mark.parametrize("name", ["stats", "health"])
def test_an_operation_on_the_model_itself_needs_none(name: str) -> None:
    check_admin(parse_operation(json.dumps({"op": name}), LIMITS), "s3cret")


def test_the_token_is_in_no_representation_and_no_error() -> None:
    operation = parse_operation('{"op": "sessions", "admin_token": "canary"}', LIMITS)
    assert "canary" not in repr(operation)
    with pytest.raises(InvalidArgument) as refusal:
        check_admin(operation, "s3cret")
    assert "canary" not in refusal.value.text()
    assert "s3cret" not in refusal.value.text()
