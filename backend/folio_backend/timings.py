"""What a generation's life looked like, in seconds.

Knows a generation's marks in time; nothing of metrics or how they are published.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

from folio_backend.request_timings import RequestTimings, outcome_of

if TYPE_CHECKING:
    from folio_backend.errors import FolioError
    from folio_backend.generation import Generation


def timings_of(generation: Generation, error: FolioError | None) -> RequestTimings:
    """The timings of a generation that has just ended, with an error or without; its last answer leaves now.

    It was admitted if it has choices.
    """
    now_s = time.monotonic()
    last_token_s = now_s if error is not None else generation.last_token_s
    marks = (generation.arrival_s, generation.first_step_s, generation.first_token_s, last_token_s)
    queue_s, prefill_s, decode_s = _lengths(marks, now_s)
    assert queue_s is not None
    first = generation.choices[0] if generation.choices else None
    return RequestTimings(
        arrival_time_s=time.time() - (now_s - generation.arrival_s),
        queue_s=queue_s,
        prefill_s=prefill_s,
        decode_s=decode_s,
        send_s=0.0 if last_token_s is None else now_s - last_token_s,
        mean_inter_token_s=_mean_inter_token_s(generation),
        history_s=generation.history_s,
        num_prompt_tokens=first.num_prompt_tokens if first else 0,
        num_cached_tokens=(first.num_cached_tokens or 0) if first else 0,
        num_generated_tokens=sum(len(choice.sampled) for choice in generation.choices),
        finish_reason=error.reason if error is not None else (first and first.finish_reason) or "stop",
        outcome=outcome_of(error, is_admitted=first is not None),
        error_code=None if error is None else error.code,
        num_choices=max(1, len(generation.choices)),
    )


def _lengths(marks: tuple[float | None, ...], end_s: float) -> list[float | None]:
    """The lengths of the phases between marks; that of the phase in which it ended up to the end, later ones None."""
    return [
        None if start_s is None else (end_s if next_s is None else next_s) - start_s
        for start_s, next_s in itertools.pairwise(marks)
    ]


def _mean_inter_token_s(generation: Generation) -> float | None:
    if generation.first_token_s is None or generation.last_token_s is None:
        return None
    num_steps = max(len(choice.sampled) for choice in generation.choices) - 1
    return (generation.last_token_s - generation.first_token_s) / num_steps if num_steps > 0 else None
