"""Errors from their text: the code among the details decides, then the protocol's status."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folio_client import (
    AlreadyExists,
    BodyTooLarge,
    Cancelled,
    ConnectionFailed,
    DeadlineExceeded,
    FolioError,
    InvalidArgument,
    NotFound,
    ServerError,
    Unavailable,
)
from folio_client.error_text import server_error, split_error_text


def text(sentence: str = "That was wrong.", **details: Any) -> str:
    return f"{sentence} {json.dumps(details)}" if details else sentence


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("INVALID_ARG", InvalidArgument),
        ("NOT_FOUND", NotFound),
        ("ALREADY_EXISTS", AlreadyExists),
        ("UNAVAILABLE", Unavailable),
        ("CANCELLED", Cancelled),
        ("INTERNAL", ServerError),
    ],
)
@pytest.mark.parametrize("status", [None, 400, "INTERNAL"])
def test_the_code_decides(code: str, kind: type[FolioError], status: str | int | None) -> None:
    assert type(server_error(text(code=code), status)) is kind


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (None, ServerError),
        (400, InvalidArgument),
        (404, NotFound),
        (429, Unavailable),
        (500, ServerError),
        (503, Unavailable),
        ("NOT_FOUND", NotFound),
        ("UNAVAILABLE", ConnectionFailed),
        ("DEADLINE_EXCEEDED", DeadlineExceeded),
        ("UNKNOWN", ServerError),
    ],
)
def test_without_a_code_the_status_decides(status: str | int | None, kind: type[FolioError]) -> None:
    assert type(server_error(text(), status)) is kind


def test_details_become_attributes() -> None:
    error = server_error(text(code="UNAVAILABLE", field="session_id", allowed="an idle one", retry_after_ms=250))
    assert (error.sentence, error.field, error.allowed) == ("That was wrong.", "session_id", "an idle one")
    assert error.retry_after_ms == 250
    assert str(error) == "That was wrong. (allowed: an idle one)"


def test_a_passed_deadline_is_no_cancelling() -> None:
    assert type(server_error(text("The deadline of 5 ms has passed.", code="CANCELLED"))) is DeadlineExceeded
    assert type(server_error(text(code="CANCELLED", field="deadline_ms"))) is DeadlineExceeded


def test_a_model_that_is_not_there_is_not_found_on_a_stream_too() -> None:
    assert type(server_error("Request for unknown model: 'x' is not found")) is NotFound


@given(st.text(), st.dictionaries(st.sampled_from(["code", "field", "allowed"]), st.text(), min_size=1))
def test_the_sentence_and_the_details_come_apart_again(sentence: str, details: dict[str, str]) -> None:
    assert split_error_text(f"{sentence}. {json.dumps(details)}") == (f"{sentence}.", details)


@pytest.mark.parametrize("plain", ["", "}", " {}}", "a {b}", '{"a": 1', 'a ["b"]'])
def test_what_has_no_details_is_all_sentence(plain: str) -> None:
    assert split_error_text(plain) == (plain, {})


@pytest.mark.parametrize("error", [Unavailable("busy", retry_after_ms=5), BodyTooLarge(5_000_000, 4_000_000)])
def test_errors_survive_the_way_between_processes(error: FolioError) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - what concurrent.futures does with it
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
