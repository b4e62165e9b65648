"""What is told of an attention model's request when it is over.

The server's own span says how long a step waited for its batch: here is only the time in our hands.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from folio_backend.attention_request import AttentionStep
from folio_backend.errors import FolioError
from folio_backend.finished_request import FinishedRequest, known_as
from folio_backend.request import Operation
from folio_backend.request_timings import outcome_of

if TYPE_CHECKING:
    from folio_backend.attention_launch import Answer
    from folio_backend.server_request import ServerRequest


def finished_step(
    request: ServerRequest, parsed: AttentionStep | Operation | FolioError, answer: Answer, total_s: float
) -> FinishedRequest:
    """What is told of a step, an operation, or what was neither.

    Args:
        request: as it came.
        parsed: what it asked for.
        answer: what it was answered.
        total_s: how long its whole batch took.
    """
    error = answer if isinstance(answer, FolioError) else None
    operation = parsed if isinstance(parsed, Operation) else None
    counts = {}
    if isinstance(parsed, AttentionStep):
        counts["num_tokens"] = parsed.num_tokens
        if not isinstance(answer, FolioError):
            counts["num_history_tokens"] = int(answer["length"].item())
    return FinishedRequest(
        request_id=known_as(request.request_id),
        outcome=outcome_of(error, is_admitted=operation is not None),
        arrival_time_s=time.time() - total_s,
        total_s=total_s,
        phases_s={"attend": total_s} if isinstance(parsed, AttentionStep) else {},
        counts=counts,
        operation=None if operation is None else operation.name,
        code=None if error is None else error.code.value,
        reason=None if error is None else error.reason,
        trace_context=request.trace_context,
    )
