"""The service behind a model of `task: attention`: a batch of requests in, its answers out, without knowing the server.

Knows how a batch of steps and operations is taken apart and answered. What a request must look like is
`attention_request`'s, how steps run together `attention_launch`'s, which pages hold a session `attention_sessions`'.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import torch

from folio_backend.attention_launch import Answer, StepLauncher
from folio_backend.attention_loader import Device, load_operations, load_sessions, step_shape
from folio_backend.attention_report import finished_step
from folio_backend.attention_request import AttentionStep, parse_attention_request
from folio_backend.attention_state import carry_out, take_snapshot
from folio_backend.config import Settings
from folio_backend.errors import FolioError, Internal
from folio_backend.finished_request import Observer
from folio_backend.metrics import EngineSnapshot, MetricsRecorder
from folio_backend.operations import check_admin
from folio_backend.recompilations import RecompilationCounter
from folio_backend.request import Operation, RequestLimits
from folio_backend.server_request import UNREAD, ServerRequest, strings

_Value = TypeVar("_Value")


class AttentionService:
    """Attention over histories of keys and values that clients send.

    Args:
        settings: what to serve and how.
        device: where.
        progress: told in a sentence what loading is doing.
        observe: told of every request that is over; returns at once.

    Attributes:
        recorder: where refused requests are counted.

    Raises:
        ConfigurationError: it cannot be served.
    """

    def __init__(
        self,
        settings: Settings,
        device: Device,
        progress: Callable[[str], None],
        observe: Observer,
    ) -> None:
        if settings.num_threads is not None:
            torch.set_num_threads(settings.num_threads)
        self.recorder = MetricsRecorder()
        self._observe = observe
        self._shape = step_shape(settings, device)
        operations = load_operations(settings, self._shape, device, progress)
        self._layout = operations.pool.layout
        self._sessions = load_sessions(settings, operations, progress)
        self._launcher = StepLauncher(operations, self._sessions)
        self._recompilations = RecompilationCounter()
        self._limits = RequestLimits(
            max_text_bytes=1, max_model_tokens=self._sessions.max_history_tokens, vocabulary_size=1, max_choices=1
        )
        self._settings = settings.describe()
        self._admin_token = None if settings.admin_token is None else settings.admin_token.get_secret_value()
        self._lock = threading.Lock()

    def execute(self, requests: Sequence[ServerRequest]) -> list[Answer]:
        """Answers a batch; what is wrong with one request leaves the others alone.

        Steps of one session apply in their order; an operation comes between the steps before and those behind it.

        Args:
            requests: steps and operations as `attention_request` reads them.

        Returns:
            For each request, in order: `output` `[1, T, heads, head_dim]` of the model's dtype and `length` int32
            `[1, 1]`; or `result` `[1, 1]`, a STRING of JSON; or the error that refuses it.
        """
        start_s = time.monotonic()
        parsed = [_or_error(partial(self._parse, request)) for request in requests]
        with self._lock:
            answers = self._answer(parsed)
        total_s = time.monotonic() - start_s
        for request, item, answer in zip(requests, parsed, answers, strict=True):
            self._conclude(request, item, answer, total_s)
        return answers

    def refuse(self, error: FolioError) -> FolioError:
        """Counts and tells of a request that could not even be read, and returns its answer."""
        self._conclude(UNREAD, error, error, 0.0)
        return error

    def snapshot(self) -> EngineSnapshot:
        """The state for metrics; from any thread, between two batches."""
        with self._lock:
            return take_snapshot(self._sessions, self._layout, self._recompilations.count())

    def check_integrity(self) -> None:
        """Checks that pages and sessions add up; raises AssertionError where they do not."""
        with self._lock:
            self._sessions.check_integrity()

    def close(self) -> None:
        """Ends every session."""
        with self._lock:
            self._sessions.close_all()

    def _parse(self, request: ServerRequest) -> AttentionStep | Operation:
        parsed = parse_attention_request(request, self._shape, self._limits)
        if isinstance(parsed, Operation):
            check_admin(parsed, self._admin_token)
        return parsed

    def _conclude(
        self, request: ServerRequest, parsed: AttentionStep | Operation | FolioError, answer: Answer, total_s: float
    ) -> None:
        """Tells of a request that is over. An operation's own failure is an answer, no rejection."""
        error = answer if isinstance(answer, FolioError) else None
        if error is not None and (not isinstance(parsed, Operation) or isinstance(error, Internal)):
            self.recorder.count_rejection(error.reason)
        self._observe(finished_step(request, parsed, answer, total_s))

    def _answer(self, parsed: Sequence[AttentionStep | Operation | FolioError]) -> list[Answer]:
        in_batch = {step.session_id for step in parsed if isinstance(step, AttentionStep)}
        answers: dict[int, Answer] = {}
        steps: dict[int, AttentionStep] = {}
        for index, item in enumerate(parsed):
            if isinstance(item, AttentionStep):
                steps[index] = item
            elif isinstance(item, FolioError):
                answers[index] = item
            else:
                answers.update(self._launcher.apply(steps, in_batch))
                steps = {}
                answers[index] = _or_error(partial(self._operate, item))
        answers.update(self._launcher.apply(steps, in_batch))
        return [answers[index] for index in range(len(parsed))]

    def _operate(self, operation: Operation) -> Answer:
        num_recompilations = self._recompilations.count()
        result = carry_out(operation, self._sessions, self._layout, self._settings, num_recompilations)
        return {"result": strings([json.dumps(result)]).reshape(1, 1)}


def _or_error(compute: Callable[[], _Value]) -> _Value | FolioError:
    """What `compute` returns, or the error that it raises: an unforeseen one belongs to its request alone."""
    try:
        return compute()
    except FolioError as error:
        return error
    except Exception as error:  # noqa: BLE001 - see above
        return Internal(f"The backend failed on this request ({type(error).__name__}).", reason="model_failure")
