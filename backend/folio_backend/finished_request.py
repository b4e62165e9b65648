"""What is told of a request when it is over, to whoever watches: logs, spans.

Knows names of ours, times and counts; nothing that a request said, and no session's name. Does not know who watches.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from folio_backend.errors import InvalidArgument
from folio_backend.field_values import identifier
from folio_backend.request import RequestLimits

if TYPE_CHECKING:
    from folio_backend.request_timings import Outcome, RequestTimings


@dataclass(frozen=True)
class FinishedRequest:
    """A request that is over.

    Attributes:
        request_id: what its client calls it, else a name of ours.
        outcome: how it ended.
        arrival_time_s: when it arrived, in seconds since 1970 (UTC).
        total_s: from then until its last answer was handed to the server.
        phases_s: lengths of the phases of its life, one after another from its arrival; empty for what was answered
            at once.
        ttft_s: from its arrival to the first token.
        counts: what was counted, as `num_prompt_tokens`.
        operation: the operation that it asked for.
        code: of the error that it ended with, as `reason`.
        reason: why it ended.
        trace_context: W3C's headers of the span that it belongs to; empty where it is not traced.
    """

    request_id: str
    outcome: Outcome
    arrival_time_s: float
    total_s: float
    phases_s: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    ttft_s: float | None = None
    counts: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    operation: str | None = None
    code: str | None = None
    reason: str | None = None
    trace_context: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


Observer = Callable[[FinishedRequest], None]


def finished_generation(timings: RequestTimings, request_id: str, trace_context: Mapping[str, str]) -> FinishedRequest:
    """What is told of a request for text."""
    return FinishedRequest(
        request_id=known_as(request_id),
        outcome=timings.outcome,
        arrival_time_s=timings.arrival_time_s,
        total_s=timings.end_to_end_s,
        phases_s=timings.phases_s(),
        ttft_s=timings.ttft_s,
        counts={
            "num_prompt_tokens": timings.num_prompt_tokens,
            "num_cached_tokens": timings.num_cached_tokens,
            "num_generated_tokens": timings.num_generated_tokens,
        },
        code=None if timings.error_code is None else timings.error_code.value,
        reason=timings.finish_reason,
        trace_context=trace_context,
    )


def known_as(request_id: str) -> str:
    """The name that a client gave its request if it is fit to be shown, else one of ours."""
    try:
        return identifier("request_id", request_id, RequestLimits.max_id_bytes)
    except InvalidArgument:
        return secrets.token_hex(8)
