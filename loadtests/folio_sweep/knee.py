"""Where a latency-throughput curve has its knee: at the level with the largest throughput over latency.

This is Kleinrock's power of a queue: below the knee a higher load buys more throughput than it costs in latency, above
it the other way round. Knows pairs of numbers; nothing of what was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MIN_LEVELS = 3
RULE = "the level with the largest ratio of throughput to median latency"


@dataclass(frozen=True)
class Knee:
    """A curve's knee.

    Attributes:
        index: the level, counted from 0.
        is_reached: False where it is the highest level measured: the knee then lies there or beyond.
    """

    index: int
    is_reached: bool


def find_knee(throughputs: Sequence[float], latencies: Sequence[float]) -> Knee | None:
    """The knee of a curve whose levels stand in the order of load; of equals the lowest.

    Args:
        throughputs: of each level, in whatever unit.
        latencies: of each level, above 0, in whatever unit.

    Returns:
        None for fewer than 3 levels, through which any curve could pass.
    """
    ratios = [throughput / latency for throughput, latency in zip(throughputs, latencies, strict=True)]
    if len(ratios) < MIN_LEVELS:
        return None
    index = ratios.index(max(ratios))
    return Knee(index, is_reached=index < len(ratios) - 1)
