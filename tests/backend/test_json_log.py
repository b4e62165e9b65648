"""The JSON log: a line for each thing, whoever says it, and nobody waits for a slow reader."""

from __future__ import annotations

import io
import json
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from hypothesis import given
from hypothesis import strategies as st

from folio_backend.errors import place_of
from folio_backend.finished_request import FinishedRequest, known_as
from folio_backend.json_log import MAX_WAITING_LINES, JsonLog
from folio_backend.request_timings import Outcome
from tests.server.generate_client import wait_until

CONTEXT = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


class SlowStream(io.StringIO):
    """Takes nothing until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def write(self, text: str) -> int:
        """Waits first."""
        self.released.wait()
        return super().write(text)


@contextmanager
def writing(stream: IO[str]) -> Iterator[JsonLog]:
    log = JsonLog(stream, {"model": "smollm2"})
    log.start()
    try:
        yield log
    finally:
        log.stop()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def request(request_id: str = "r") -> FinishedRequest:
    phases_s = {"queue": 0.25, "prefill": 0.5}
    return FinishedRequest(request_id, Outcome.OK, 1.7e9, 0.75, phases_s, counts={"num_prompt_tokens": 7})


def test_a_request_is_a_line_without_what_does_not_apply() -> None:
    stream = io.StringIO()
    with writing(stream) as log:
        log.observe(request())
    (line,) = lines(stream)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "info",
        "model": "smollm2",
        "event": "request",
        "request_id": "r",
        "outcome": "ok",
        "queue_s": 0.25,
        "prefill_s": 0.5,
        "total_s": 0.75,
        "num_prompt_tokens": 7,
    }


def test_a_traced_request_names_its_trace() -> None:
    stream = io.StringIO()
    with writing(stream) as log:
        log.observe(FinishedRequest("r", Outcome.OK, 0.0, 1.0, trace_context=CONTEXT))
    assert lines(stream)[0]["trace_id"] == "0af7651916cd43dd8448eb211c80319c"


def test_libraries_are_heard_and_what_their_exceptions_quote_is_not() -> None:
    stream = io.StringIO()
    with warnings.catch_warnings(), writing(stream):
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        try:
            int("canary")
        except ValueError:
            logging.getLogger("a.library").exception("it failed")
    warning, failure = lines(stream)
    assert warning["event"] == failure["event"] == "library"
    assert "DeprecationWarning: old" in warning["message"]
    assert failure.items() >= {"level": "error", "message": "it failed", "exception": "ValueError"}.items()
    assert "canary" not in stream.getvalue()


def test_nobody_waits_for_a_slow_reader_and_what_was_dropped_is_said() -> None:
    stream = SlowStream()
    with writing(stream) as log:
        for _ in range(MAX_WAITING_LINES + 50):
            log.observe(request())
        stream.released.set()
    assert MAX_WAITING_LINES <= len(lines(stream)) < MAX_WAITING_LINES + 50


def test_the_next_line_after_a_loss_says_how_much_was_lost() -> None:
    stream = SlowStream()
    with writing(stream) as log:
        for _ in range(MAX_WAITING_LINES + 50):
            log.observe(request())
        stream.released.set()
        wait_until(lambda: stream.getvalue().count("\n") >= MAX_WAITING_LINES)
        log.info("later")
    num_requests = sum(line["event"] == "request" for line in lines(stream))
    (loss,) = (line for line in lines(stream) if "dropped" in line.get("message", ""))
    assert loss["level"] == "warning"
    assert num_requests + int(loss["message"].split()[0]) == MAX_WAITING_LINES + 50


@given(st.text())
def test_a_request_is_known_by_a_name_that_can_be_shown(name: str) -> None:
    shown = known_as(name)
    assert shown.isprintable()
    assert 1 <= len(shown.encode()) <= 256
    assert shown == name or len(shown) == 16


def test_an_exception_is_placed_without_its_text() -> None:
    try:
        "\ud800 canary".encode()
    except UnicodeEncodeError as error:
        place = place_of(error)
    assert place.startswith("UnicodeEncodeError at test_json_log.py:")
    assert "canary" not in place
