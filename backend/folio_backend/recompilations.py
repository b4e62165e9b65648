"""Counts compilations since the model became ready: there must be none.

Reads the compiler's own count, which covers the whole process.
"""

from __future__ import annotations

from torch._dynamo.utils import counters


class RecompilationCounter:
    """Compilations since it was made."""

    def __init__(self) -> None:
        self._at_start = _num_compilations()

    def count(self) -> int:
        """How many there have been."""
        return _num_compilations() - self._at_start


def _num_compilations() -> int:
    return int(counters["stats"].get("unique_graphs", 0))
