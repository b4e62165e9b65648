"""How a request ended and how long each part of its life took: one value that metrics, logs and spans all tell.

Knows times, counts and outcomes. Nothing that a request said enters here.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from folio_backend.errors import ErrorCode

if TYPE_CHECKING:
    from folio_backend.errors import FolioError


class Outcome(enum.Enum):
    """How a request ended."""

    OK = "ok"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    FAILED = "failed"


def outcome_of(error: FolioError | None, *, is_admitted: bool) -> Outcome:
    """The outcome of a request that ended with `error`, or without one.

    Args:
        error: what it was answered.
        is_admitted: it was taken up, and so cannot be refused any more; for an operation: it was carried out.
    """
    if error is None:
        return Outcome.OK
    if error.code is ErrorCode.CANCELLED:
        return Outcome.CANCELLED
    return Outcome.FAILED if is_admitted or error.code is ErrorCode.INTERNAL else Outcome.REFUSED


@dataclass(frozen=True)
class RequestTimings:
    """What is known of a request for text when its last answer has left.

    Its four phases follow one another without a gap; the one in which a request ends early is as long as it lasted.

    Args:
        arrival_time_s: when it arrived, in seconds since 1970 (UTC).
        queue_s: from arrival to the first step, or to the end of a request that never ran.
        prefill_s: from then to the first token; None for a request that never ran.
        decode_s: from then to the last token; None without a first one.
        send_s: from then until the last answer was handed to the server.
        mean_inter_token_s: mean time between two tokens; None with fewer than two.
        history_s: time to make the history ready, lookup and load; None for a request that never looked:
            it counts as neither hit nor miss.
        num_prompt_tokens: tokens of the prompt, a session's history included.
        num_cached_tokens: those of them whose KV was not computed again.
        num_generated_tokens: sampled tokens, over all choices.
        finish_reason: why it ended: vLLM's word, or an error's reason.
        outcome: how it ended.
        error_code: of the error it ended with.
        num_choices: `n` of the request.
    """

    arrival_time_s: float
    queue_s: float
    prefill_s: float | None
    decode_s: float | None
    send_s: float
    mean_inter_token_s: float | None
    history_s: float | None
    num_prompt_tokens: int
    num_cached_tokens: int
    num_generated_tokens: int
    finish_reason: str
    outcome: Outcome = Outcome.OK
    error_code: ErrorCode | None = None
    num_choices: int = 1

    def __post_init__(self) -> None:
        times = (*self.phases_s().values(), self.mean_inter_token_s, self.history_s)
        assert all(time is None or (math.isfinite(time) and time >= 0) for time in times)
        assert self.decode_s is None or self.prefill_s is not None
        assert (self.outcome is Outcome.OK) == (self.error_code is None)
        assert 0 <= self.num_cached_tokens <= self.num_prompt_tokens
        assert self.num_generated_tokens >= 0
        assert self.num_choices >= 1

    @property
    def ttft_s(self) -> float | None:
        """From arrival to the first token; None when there was none."""
        if self.prefill_s is None or self.decode_s is None:
            return None
        return self.queue_s + self.prefill_s

    @property
    def end_to_end_s(self) -> float:
        """From arrival until the last answer was handed to the server."""
        return sum(self.phases_s().values())

    def phases_s(self) -> dict[str, float]:
        """The phases that it reached, in their order, with their lengths."""
        phases = {"queue": self.queue_s, "prefill": self.prefill_s, "decode": self.decode_s, "send": self.send_s}
        return {name: length_s for name, length_s in phases.items() if length_s is not None}

    def sent_later(self, delay_s: float) -> RequestTimings:
        """The same, its last answer having left so much later."""
        return replace(self, send_s=self.send_s + delay_s)
