"""From the text of a server's error to the exception for it.

Folio's errors are one sentence, then a JSON object with `code`, `field`, `allowed` and `retry_after_ms` as far as each
applies; the code decides, since HTTP and gRPC streams carry no status of their own. Errors of the server itself, and of
other backends, are plain text: there the protocol's status decides, if there is one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType

from folio_client.errors import (
    AlreadyExists,
    Cancelled,
    ConnectionFailed,
    DeadlineExceeded,
    FolioError,
    InvalidArgument,
    NotFound,
    ServerError,
    Unavailable,
)

_BY_CODE: Mapping[str, type[FolioError]] = MappingProxyType(
    {
        "INVALID_ARG": InvalidArgument,
        "NOT_FOUND": NotFound,
        "ALREADY_EXISTS": AlreadyExists,
        "UNAVAILABLE": Unavailable,
        "CANCELLED": Cancelled,
        "INTERNAL": ServerError,
    }
)
_BY_STATUS: Mapping[str | int, type[FolioError]] = MappingProxyType(
    {
        "INVALID_ARGUMENT": InvalidArgument,
        "OUT_OF_RANGE": InvalidArgument,
        "UNAUTHENTICATED": InvalidArgument,
        "PERMISSION_DENIED": InvalidArgument,
        "RESOURCE_EXHAUSTED": InvalidArgument,  # a message over gRPC's own bound
        "NOT_FOUND": NotFound,
        "ALREADY_EXISTS": AlreadyExists,
        "UNAVAILABLE": ConnectionFailed,
        "CANCELLED": Cancelled,
        "DEADLINE_EXCEEDED": DeadlineExceeded,
        400: InvalidArgument,
        401: InvalidArgument,
        403: InvalidArgument,
        404: NotFound,
        409: AlreadyExists,
        413: InvalidArgument,
        429: Unavailable,
        499: Cancelled,
        502: ConnectionFailed,
        503: Unavailable,
        504: DeadlineExceeded,
    }
)
# The server's own words for a model that is not loaded; a gRPC stream gives them without a status.
_UNKNOWN_MODEL = "Request for unknown model"
_DEADLINE_FIELD = "deadline_ms"
_DEADLINE_PASSED = "The deadline of "


def server_error(text: str, status: str | int | None = None) -> FolioError:
    """The exception for an error's text.

    Args:
        text: as the server sent it.
        status: the name of a gRPC status or the number of an HTTP one; None where the protocol has none.
    """
    sentence, details = split_error_text(text)
    kind = _kind(sentence, details, status)
    allowed, retry_after_ms = details.get("allowed"), details.get("retry_after_ms")
    return kind(
        sentence,
        field=_string(details.get("field")),
        allowed=None if allowed is None else str(allowed),
        retry_after_ms=retry_after_ms if isinstance(retry_after_ms, int) else None,
    )


def deadline_exceeded(timeout_s: float) -> DeadlineExceeded:
    """The error for a request that took longer than its caller would wait."""
    return DeadlineExceeded(f"The server did not finish within {timeout_s:.3g} s.", field="timeout_s")


def split_error_text(text: str) -> tuple[str, Mapping[str, object]]:
    """The sentence of an error's text, and its details; a text without any is all sentence."""
    if text.endswith("}"):
        start = text.find(" {")
        while start >= 0:
            details = _json_object(text[start + 1 :])
            if details is not None:
                return text[:start], details
            start = text.find(" {", start + 1)
    return text, {}


def _kind(sentence: str, details: Mapping[str, object], status: str | int | None) -> type[FolioError]:
    if sentence.startswith(_UNKNOWN_MODEL):
        return NotFound
    kind = _BY_CODE.get(str(details.get("code")))
    if kind is None:
        kind = _by_details(details) or _BY_STATUS.get(status or 0, ServerError)
    is_deadline = details.get("field") == _DEADLINE_FIELD or sentence.startswith(_DEADLINE_PASSED)
    return DeadlineExceeded if kind is Cancelled and is_deadline else kind


def _by_details(details: Mapping[str, object]) -> type[FolioError] | None:
    """What details without a code tell: only a refusal for now says when to ask again."""
    return Unavailable if "retry_after_ms" in details else None


def _json_object(text: str) -> Mapping[str, object] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _string(value: object) -> str | None:
    return value if isinstance(value, str) else None
