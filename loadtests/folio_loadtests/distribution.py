"""Percentiles of many values, without interpolation: each is a value that was measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of ascending values that `share` of them do not exceed; NaN where there are none."""
    if not ordered:
        return math.nan
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


@dataclass(frozen=True)
class Distribution:
    """What is told of many values; all NaN where there are none."""

    num_values: int
    mean: float
    p50: float
    p95: float
    p99: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Distribution:
        """Of the values that are there."""
        ordered = sorted(value for value in values if value is not None)
        mean = math.fsum(ordered) / len(ordered) if ordered else math.nan
        shares = (percentile(ordered, share) for share in (0.5, 0.95, 0.99, 1.0))
        return cls(len(ordered), mean, *shares)


class Counts:
    """Many durations in little room: how many there are of each tenth of a millisecond. They add up over processes.

    Args:
        counts: tenths of a millisecond to how many.
    """

    RESOLUTION_S = 1e-4

    def __init__(self, counts: dict[int, int] | None = None) -> None:
        self._counts = dict(counts or {})

    def add(self, value_s: float) -> None:
        """Counts a duration, at least its length: it is rounded up."""
        key = max(math.ceil(round(value_s / self.RESOLUTION_S, 6)), 0)
        self._counts[key] = self._counts.get(key, 0) + 1

    def merge(self, other: Counts) -> None:
        """Adds all of the other's."""
        for key, count in other._counts.items():
            self._counts[key] = self._counts.get(key, 0) + count

    def take(self) -> dict[int, int]:
        """What was counted; nothing of it is left here."""
        taken, self._counts = self._counts, {}
        return taken

    def __len__(self) -> int:
        return sum(self._counts.values())

    def percentile(self, share: float) -> float:
        """As `percentile`, to the next tenth of a millisecond above."""
        rank, seen = max(math.ceil(share * len(self)), 1), 0
        for key in sorted(self._counts):
            seen += self._counts[key]
            if seen >= rank:
                return key * self.RESOLUTION_S
        return math.nan
