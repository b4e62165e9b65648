"""The text and code that each error gives to a client."""

from __future__ import annotations

import json

import pytest

from folio_backend.errors import (
    AlreadyExists,
    Cancelled,
    ErrorCode,
    FolioError,
    Internal,
    InvalidArgument,
    NotFound,
    Unavailable,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidArgument, "INVALID_ARG"),
        (NotFound, "NOT_FOUND"),
        (AlreadyExists, "ALREADY_EXISTS"),
        (Unavailable, "UNAVAILABLE"),
        (Cancelled, "CANCELLED"),
        (Internal, "INTERNAL"),
    ],
)
def test_each_error_has_its_code(error: type[FolioError], code: str) -> None:
    assert error("It failed.").code.value == code


def test_every_code_of_the_server_can_be_answered() -> None:
    assert {error.code for error in FolioError.__subclasses__()} == set(ErrorCode)


def test_text_without_details_still_tells_the_code() -> None:
    assert NotFound("There is no such session.").text() == 'There is no such session. {"code": "NOT_FOUND"}'


@pytest.mark.parametrize(
    "details",
    [
        {"field": "n"},
        {"allowed": "1 to 8"},
        {"retry_after_ms": 250},
        {"retry_after_ms": 0},
        {"field": "n", "allowed": "1 to 8", "retry_after_ms": 250},
    ],
)
def test_text_ends_with_the_details_that_apply(details: dict[str, object]) -> None:
    text = Unavailable("The queue is full.", **details).text()  # type: ignore[arg-type]
    sentence, _, document = text.partition(" {")
    assert sentence == "The queue is full."
    assert json.loads("{" + document) == {"code": "UNAVAILABLE", **details}


def test_details_stay_one_line_of_ascii_whatever_the_field_is_called() -> None:
    text = InvalidArgument("There is no such field.", field='a"\n\u2028é').text()
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text[text.index("{") :]) == {"code": "INVALID_ARG", "field": 'a"\n\u2028é'}


def test_reason_is_a_label_that_never_reaches_the_client() -> None:
    error = Unavailable("The queue is full.", reason="queue_full")
    assert error.reason == "queue_full"
    assert "queue_full" not in error.text()
    assert Unavailable("The queue is full.").reason == "unavailable"


def test_an_error_logged_as_an_exception_shows_its_sentence() -> None:
    assert str(InvalidArgument("n is 9.", field="n")) == "n is 9."
