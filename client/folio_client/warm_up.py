"""When a server is warm: its latencies have stopped falling. Pure decisions, shared by both clients."""

from __future__ import annotations

import math
from collections.abc import Sequence

from folio_client.options import GenerateOptions

WARM_UP_PROMPT = "Once upon a time"
WARM_UP_OPTIONS: GenerateOptions = {"max_tokens": 4, "temperature": 0, "ignore_eos": True}
DEFAULT_NUM_REQUESTS = 100
WINDOW = 25
TOLERANCE = 0.1


def p95(values: Sequence[float]) -> float:
    """The smallest value that 95 % of them do not exceed."""
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


def is_settled(latencies_s: Sequence[float], window: int = WINDOW, tolerance: float = TOLERANCE) -> bool:
    """Whether the p95 of the last `window` latencies is within `tolerance` of that of the window before."""
    if len(latencies_s) < 2 * window:
        return False
    before, last = p95(latencies_s[-2 * window : -window]), p95(latencies_s[-window:])
    return abs(last - before) <= tolerance * before
