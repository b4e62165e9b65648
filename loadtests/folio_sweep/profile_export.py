"""Reads perf_analyzer's profile export: what was sent when, and what came back when.

Knows both ways in which numbers are written there: as JSON numbers and, in 2.48's responses, as the raw bytes of the
tensor, one character a byte. Does not know what is computed from it, and keeps neither prompts nor answers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from folio_sweep.errors import LevelFailed

INTEGER_BYTES = 4


@dataclass(frozen=True)
class Response:
    """One response to a request.

    Attributes:
        time_ns: when it arrived, by perf_analyzer's clock.
        num_tokens: tokens that it brought: 0 for an empty FINAL response, 1 for an answer of an attention model.
        num_prompt_tokens: tokens of the whole prompt; None where the response does not say.
        num_cached_tokens: prompt tokens whose KV was not computed again; None where the response does not say.
        length: tokens that an attention session holds; None where the response does not say.
    """

    time_ns: int
    num_tokens: int
    num_prompt_tokens: int | None
    num_cached_tokens: int | None
    length: int | None


@dataclass(frozen=True)
class Request:
    """One request and all its responses.

    Attributes:
        sent_ns: when it was sent, by perf_analyzer's clock.
        session_id: the session that it went to; None where it named none.
        position: the history's length that it named.
        responses: in the order of arrival.
    """

    sent_ns: int
    session_id: str | None
    position: int | None
    responses: tuple[Response, ...]


def read_export(path: Path) -> tuple[Request, ...]:
    """The requests of an export of one load level, in the order in which they were sent.

    Raises:
        LevelFailed: the file is not such an export.
    """
    try:
        # Raw bytes of tensors stand in the text, so that it is not always UTF-8; this way each stays a character.
        document = json.loads(path.read_bytes().decode("latin-1"))
        (experiment,) = document["experiments"]
        requests = [_request(members) for members in experiment["requests"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LevelFailed(f"{path.name} is no profile export of one level ({type(error).__name__}).") from error
    return tuple(sorted(requests, key=lambda request: request.sent_ns))


def integer(value: object) -> int | None:
    """A number of the export: JSON's own, or the little-endian bytes of a 32-bit tensor; None for an absent one."""
    if isinstance(value, bool) or value is None or value == "":
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and len(value) == INTEGER_BYTES:
        return int.from_bytes(value.encode("latin-1"), "little", signed=True)
    raise ValueError("a number is neither JSON's nor four bytes")


def _request(members: Mapping[str, Any]) -> Request:
    inputs: Mapping[str, Any] = members["request_inputs"]
    times: Sequence[int] = members["response_timestamps"]
    outputs: Sequence[Mapping[str, Any]] = members["response_outputs"]
    responses = (_response(time_ns, output) for time_ns, output in zip(times, outputs, strict=True))
    return Request(
        sent_ns=members["timestamp"],
        session_id=inputs.get("session_id"),
        position=integer(inputs.get("position")),
        responses=tuple(responses),
    )


def _response(time_ns: int, output: Mapping[str, Any]) -> Response:
    return Response(
        time_ns=time_ns,
        num_tokens=_num_tokens(output),
        num_prompt_tokens=integer(output.get("num_input_tokens")),
        num_cached_tokens=integer(output.get("num_cached_tokens")),
        length=integer(output.get("length")),
    )


def _num_tokens(output: Mapping[str, Any]) -> int:
    """Tokens of a response by its own count; without one (another backend's) a text is a token, and none is none."""
    counted = integer(output.get("num_output_tokens"))
    if counted is not None:
        return counted
    return int(bool(output.get("text_output")) or integer(output.get("length")) is not None)
