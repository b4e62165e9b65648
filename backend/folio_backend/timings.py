"""What a generation's life looked like, in seconds.

Knows a generation's marks in time; nothing of metrics or how they are published.
"""

from __future__ import annotations

import time

from folio_backend.generation import Generation
from folio_backend.metrics import RequestTimings


def timings_of(generation: Generation, finish_reason: str) -> RequestTimings:
    """The timings of a generation that has just ended."""
    now_s = time.monotonic()
    first = generation.choices[0] if generation.choices else None
    num_generated = sum(len(choice.sampled) for choice in generation.choices)
    ttft_s, inter_token_s = None, None
    if generation.first_token_s is not None and generation.last_token_s is not None:
        ttft_s = generation.first_token_s - generation.arrival_s
        steps = max(len(choice.sampled) for choice in generation.choices) - 1
        inter_token_s = (generation.last_token_s - generation.first_token_s) / steps if steps > 0 else None
    return RequestTimings(
        queue_s=(generation.first_step_s or now_s) - generation.arrival_s,
        ttft_s=ttft_s,
        mean_inter_token_s=inter_token_s,
        end_to_end_s=now_s - generation.arrival_s,
        history_s=generation.history_s,
        num_prompt_tokens=first.num_prompt_tokens if first else 0,
        num_cached_tokens=(first.num_cached_tokens or 0) if first else 0,
        num_generated_tokens=num_generated,
        finish_reason=finish_reason,
        num_choices=max(1, len(generation.choices)),
    )
