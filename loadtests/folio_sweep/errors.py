"""What can go wrong in a sweep, as sentences for the person who runs it."""

from __future__ import annotations


class SweepError(Exception):
    """The sweep cannot go on; the text says why and what to do."""


class AnalyzerMissing(SweepError):
    """No perf_analyzer works here; the text says what was tried and what to install."""


class LevelFailed(Exception):
    """One load level has no valid measurement; the text says why. The others are not affected."""
