"""Requests that are answered at once: what their clients get, what is counted, and what is told of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from folio_backend.errors import FolioError, InvalidArgument, NotFound
from folio_backend.finished_request import FinishedRequest
from folio_backend.generate_server import GenerateServer
from folio_backend.metric_definitions import REJECTIONS
from folio_backend.metrics import MetricsRecorder
from folio_backend.request import Operation
from folio_backend.server_request import ServerRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from folio_backend.server_request import Tensors

CLOSE = Operation("close", {"session_id": "canary"})


@dataclass
class Client:
    """Keeps what it is answered."""

    answers: list[Any] = field(default_factory=list)

    def send(self, outputs: Tensors, *, is_final: bool) -> None:
        """Keeps outputs."""
        assert is_final
        self.answers.append(outputs)

    def fail(self, error: FolioError) -> None:
        """Keeps an error."""
        self.answers.append(error.code.value)

    def is_cancelled(self) -> bool:
        """It stays."""
        return False


def fail(error: Exception) -> None:
    raise error


def raising(error: Exception) -> Callable[[object], Any]:
    """A method that raises."""

    def method(_: object) -> None:
        raise error

    return method


def taken(parse: Callable[[object], Any], operate: Callable[[object], Any]) -> tuple[Any, dict[str, float], Any]:
    """A request's answer, the rejections counted by reason, and what was told of it, from a service that does this."""
    recorder, finished = MetricsRecorder(), list[FinishedRequest]()
    service: Any = SimpleNamespace(parse=parse, operate=operate, recorder=recorder, close=lambda: None)
    server, client = GenerateServer(service, finished.append, fail), Client()
    server.take(lambda: ServerRequest({}, {}, request_id="r"), client)
    server.close()
    totals = recorder.drain().totals.items()
    rejections = {series.label_values[0]: total for series, total in totals if series.definition is REJECTIONS}
    (answer,), (told,) = client.answers, finished
    return answer, rejections, (told.request_id, told.operation, told.outcome.value, told.code, told.reason)


def test_an_operation_that_is_carried_out() -> None:
    outputs = {"result": "closed"}
    told = ("r", "close", "ok", None, None)
    assert taken(lambda _: CLOSE, lambda _: outputs) == (outputs, {}, told)


def test_an_operation_s_own_failure_is_no_rejection() -> None:
    told = ("r", "close", "failed", "NOT_FOUND", "notfound")
    assert taken(lambda _: CLOSE, raising(NotFound("There is no such session."))) == ("NOT_FOUND", {}, told)


def test_a_request_that_cannot_be_served_is_a_rejection() -> None:
    told = ("r", None, "refused", "INVALID_ARG", "too_long")
    parse = raising(InvalidArgument("It is too long.", reason="too_long"))
    assert taken(parse, raising(AssertionError())) == ("INVALID_ARG", {"too_long": 1}, told)


@pytest.mark.parametrize("is_operation", [False, True])
def test_a_fault_of_ours_counts_wherever_it_happens(is_operation: bool) -> None:
    fault = raising(ZeroDivisionError("canary"))
    told = ("r", "close" if is_operation else None, "failed", "INTERNAL", "internal")
    assert taken((lambda _: CLOSE) if is_operation else fault, fault) == ("INTERNAL", {"internal": 1}, told)
