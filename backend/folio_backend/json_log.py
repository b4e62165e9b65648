"""The log as JSON, one object a line: requests that are over, what loading does, faults, libraries' warnings.

Knows how a line looks and that writing one never holds up whoever has something to say: lines are made and written on
a thread of their own. Content of requests has no way in: a `FinishedRequest` has none, and of a fault of which nobody
knows what its text quotes, only the kind and the place are written.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import IO, Any

from folio_backend.finished_request import FinishedRequest

MAX_WAITING_LINES = 10_000
"""Lines that wait for a slow reader of the log; later ones are counted instead."""


class JsonLog:
    """A log.

    Args:
        stream: where to.
        fields: what every line says, as the model's name.
    """

    def __init__(self, stream: IO[str], fields: Mapping[str, str]) -> None:
        waiting: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
        writer = logging.StreamHandler(stream)
        writer.setFormatter(_JsonFormatter(fields))
        self._handler = _QueueHandler(waiting)
        self._listener = logging.handlers.QueueListener(waiting, writer)
        self._logger = logging.getLogger("folio")

    def start(self) -> None:
        """Starts to write; from now on also what libraries warn of, in this whole process."""
        self._listener.start()
        self._logger.setLevel(logging.INFO)
        logging.getLogger().addHandler(self._handler)
        logging.captureWarnings(True)

    def stop(self) -> None:
        """Writes what waits and ends."""
        logging.captureWarnings(False)
        logging.getLogger().removeHandler(self._handler)
        self._listener.stop()

    def observe(self, finished: FinishedRequest) -> None:
        """Writes of a request that is over."""
        self._logger.info("", extra={"members": finished})

    def info(self, sentence: str) -> None:
        """Writes what loading does."""
        self._logger.info(sentence, extra={"members": {"event": "load"}})

    def error(self, sentence: str) -> None:
        """Writes of a fault."""
        self._logger.error(sentence, extra={"members": {"event": "error"}})


class _QueueHandler(logging.handlers.QueueHandler):
    """Hands records over as they are: the other side of the queue is a thread of the same process."""

    queue: queue.SimpleQueue[logging.LogRecord]
    _num_dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        """Runs under the handler's own lock."""
        if self.queue.qsize() >= MAX_WAITING_LINES:
            self._num_dropped += 1
            return
        if self._num_dropped:
            sentence = f"{self._num_dropped} lines were dropped: the log is read too slowly"
            self._num_dropped = 0
            self.queue.put(logging.LogRecord("folio", logging.WARNING, "", 0, sentence, None, None))
        self.queue.put(record)


class _JsonFormatter(logging.Formatter):
    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__()
        self._fields = dict(fields)

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), **self._fields, **_members(record)}
        return json.dumps(line)


def _members(record: logging.LogRecord) -> dict[str, Any]:
    given = getattr(record, "members", None)
    if isinstance(given, FinishedRequest):
        return _request_members(given)
    members: dict[str, Any] = dict(given or {"event": "library", "logger": record.name})
    members["message"] = record.getMessage()
    if record.exc_info and record.exc_info[0] is not None:
        members["exception"] = record.exc_info[0].__name__
    return members


def _request_members(finished: FinishedRequest) -> dict[str, Any]:
    """What a line says of a request: names and times as the metrics have them; what does not apply is left out."""
    members = {
        "event": "request" if finished.operation is None else "operation",
        "request_id": finished.request_id,
        "operation": finished.operation,
        "outcome": finished.outcome.value,
        "code": finished.code,
        "reason": finished.reason,
        **{f"{phase}_s": round(length_s, 6) for phase, length_s in finished.phases_s.items()},
        "ttft_s": None if finished.ttft_s is None else round(finished.ttft_s, 6),
        "total_s": round(finished.total_s, 6),
        **finished.counts,
        "trace_id": _trace_id(finished.trace_context),
    }
    return {name: value for name, value in members.items() if value is not None}


def _trace_id(trace_context: Mapping[str, str]) -> str | None:
    """The trace that a W3C context belongs to: `00-<trace>-<span>-<flags>`."""
    parts = trace_context.get("traceparent", "").split("-")
    return parts[1] if len(parts) == 4 else None
