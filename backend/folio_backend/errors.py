"""The errors a request can be answered with, and their text.

Knows the six codes that the server's Python backend has and the one-sentence-plus-JSON form of an error's text.
Does not know how an error travels: the boundary (`triton_model`) translates it once.
"""

from __future__ import annotations

import enum
import json
import traceback
from pathlib import Path
from typing import ClassVar


class ErrorCode(enum.Enum):
    """The codes that the server's Python backend offers."""

    INVALID_ARGUMENT = "INVALID_ARG"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    UNAVAILABLE = "UNAVAILABLE"
    CANCELLED = "CANCELLED"
    INTERNAL = "INTERNAL"


class FolioError(Exception):
    """Base of every error that reaches a client.

    Args:
        sentence: one sentence that says what was wrong; numbers by value, strings by length, tensors by shape.
        field: the offending input or parameter.
        allowed: what the field may hold, in words or as a bound.
        retry_after_ms: when asking again may succeed, in milliseconds.
        reason: a short label for metrics; never request content.
    """

    code: ClassVar[ErrorCode] = ErrorCode.INTERNAL

    def __init__(
        self,
        sentence: str,
        *,
        field: str | None = None,
        allowed: str | None = None,
        retry_after_ms: int | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.field = field
        self.allowed = allowed
        self.retry_after_ms = retry_after_ms
        self.reason = reason or type(self).__name__.lower()

    def text(self) -> str:
        """The sentence, then the details as JSON, as far as each applies.

        The code is among them: HTTP answers 400 whatever it is, and a stream of responses shows no code at all.
        """
        details = {"field": self.field, "allowed": self.allowed, "retry_after_ms": self.retry_after_ms}
        given = {name: value for name, value in details.items() if value is not None}
        return f"{self.sentence} {json.dumps({'code': self.code.value, **given})}"


class InvalidArgument(FolioError):
    """The request cannot be served as it stands."""

    code = ErrorCode.INVALID_ARGUMENT


class NotFound(FolioError):
    """What the request names is not there."""

    code = ErrorCode.NOT_FOUND


class AlreadyExists(FolioError):
    """What the request would create is there already."""

    code = ErrorCode.ALREADY_EXISTS


class Unavailable(FolioError):
    """Overload, quota or drain: asking again later may succeed."""

    code = ErrorCode.UNAVAILABLE


class Cancelled(FolioError):
    """The client cancelled, or the request's deadline passed."""

    code = ErrorCode.CANCELLED


class Internal(FolioError):
    """A fault of ours; the text names its kind and never its content."""


class ConfigurationError(Exception):
    """A setting stops the model from loading; the text names the setting, its value and what is allowed."""


def place_of(error: BaseException) -> str:
    """The kind of an exception and where it was raised, for a log: its own text may quote a request."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"
