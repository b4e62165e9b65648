"""When a server is warm: its latencies have stopped falling. Pure decisions, shared by both clients."""

from __future__ import annotations

import math
from collections.abc import Sequence

from folio_client.options import GenerateOptions
from folio_client.types import GenerateResult, WarmUpResult

WARM_UP_PROMPT = "Once upon a time"
WARM_UP_OPTIONS: GenerateOptions = {"max_tokens": 4, "temperature": 0, "ignore_eos": True}
DEFAULT_NUM_REQUESTS = 100
WINDOW = 25
TOLERANCE = 0.1


class WarmUp:
    """One warm-up: which generations to send next, until latencies settle or there were enough.

    Args:
        num_requests: the most to send.
        max_concurrency: how many at a time.
        prompt: what they continue.
    """

    def __init__(self, num_requests: int, max_concurrency: int, prompt: str) -> None:
        self._num_requests = num_requests
        self._max_concurrency = max_concurrency
        self._prompt = prompt
        self._latencies_s: list[float] = []

    def next_prompts(self) -> list[str]:
        """What to send at once; nothing at the end."""
        num_left = 0 if is_settled(self._latencies_s) else self._num_requests - len(self._latencies_s)
        return [self._prompt] * min(self._max_concurrency, num_left)

    def add(self, results: Sequence[GenerateResult]) -> None:
        """What came of them."""
        self._latencies_s += [result.usage.total_s for result in results]

    @property
    def result(self) -> WarmUpResult:
        """How it went so far."""
        return WarmUpResult(tuple(self._latencies_s), is_settled(self._latencies_s))


def p95(values: Sequence[float]) -> float:
    """The smallest value that 95 % of them do not exceed."""
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


def is_settled(latencies_s: Sequence[float], window: int = WINDOW, tolerance: float = TOLERANCE) -> bool:
    """Whether the p95 of the last `window` latencies is within `tolerance` of that of the window before."""
    if len(latencies_s) < 2 * window:
        return False
    before, last = p95(latencies_s[-2 * window : -window]), p95(latencies_s[-window:])
    return abs(last - before) <= tolerance * before
