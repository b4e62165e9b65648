"""What one process of the generator has seen, until it reports it: samples, comparisons, its own lag and load.

Knows the phases of the run and their moments on its own clock. Does not know how reports travel.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

from folio_loadtests.comparison import Comparison
from folio_loadtests.distribution import Counts
from folio_loadtests.sample import Cohort, Phase, Sample


@dataclass
class Load:
    """How busy this process was while it measured.

    Attributes:
        late: how late its timers were.
        start_cpu_s: processor seconds of all its threads when the measurement began; None before.
        start_s: when that was.
        cpu_s: processor seconds since.
        elapsed_s: seconds since.
    """

    late: Counts = field(default_factory=Counts)
    start_cpu_s: float | None = None
    start_s: float = 0.0
    cpu_s: float = 0.0
    elapsed_s: float = 0.0

    def begin(self) -> None:
        """The measurement begins."""
        self.start_cpu_s, self.start_s = time.process_time(), time.monotonic()

    def update(self) -> None:
        """Brings the sums up to now; before the measurement they are 0."""
        if self.start_cpu_s is not None:
            self.cpu_s, self.elapsed_s = time.process_time() - self.start_cpu_s, time.monotonic() - self.start_s


class Recorder:
    """One process's share of a run.

    Attributes:
        phase: the one that runs.
        num_open: requests that have not ended.
        load: how busy the process was.
    """

    def __init__(self) -> None:
        self.phase = Phase.WARM_UP
        self.num_open = 0
        self.load = Load()
        self._starts_s = {Phase.WARM_UP: -math.inf}
        self._samples: list[Sample] = []
        self._comparisons: list[tuple[Comparison, Cohort]] = []
        self._faults: list[str] = []
        self._wall_s = time.time() - time.monotonic()

    def enter(self, phase: Phase) -> None:
        """The run has come to a phase; coming to it again changes nothing."""
        if phase in self._starts_s:
            return
        self._starts_s[phase] = time.monotonic()
        if phase is Phase.MEASUREMENT:
            self.load.begin()
        else:
            self.load.update()
        self.phase = phase

    def phase_at(self, moment_s: float) -> Phase:
        """The phase that ran at a moment of the monotonic clock."""
        return max((start_s, phase) for phase, start_s in self._starts_s.items() if start_s <= moment_s)[1]

    def wall_s(self, moment_s: float) -> float:
        """A moment of the monotonic clock in seconds since 1970."""
        return moment_s + self._wall_s

    def add(self, sample: Sample) -> None:
        """A request has ended."""
        self._samples.append(sample)

    def add_comparison(self, comparison: Comparison, cohort: Cohort) -> None:
        """A resumed session's answer was compared."""
        self._comparisons.append((comparison, cohort))

    def add_fault(self, sentence: str) -> None:
        """The suite itself has failed: what it measured cannot be trusted."""
        self._faults.append(sentence)

    def add_lateness(self, late_s: float) -> None:
        """A timer of this process was so much late."""
        if self.phase is Phase.MEASUREMENT:
            self.load.late.add(late_s)

    def take_report(self) -> dict[str, Any]:
        """What is new since the last report, of values that any wire carries; see `Recording.add_report`."""
        if self.phase is Phase.MEASUREMENT:
            self.load.update()
        samples, self._samples = self._samples, []
        comparisons, self._comparisons = self._comparisons, []
        faults, self._faults = self._faults, []
        return {
            "phase": self.phase.value,
            "num_open": self.num_open,
            "samples": [sample.fields() for sample in samples],
            "comparisons": [[*vars(comparison).values(), cohort.value] for comparison, cohort in comparisons],
            "faults": faults,
            "late": self.load.late.take(),
            "cpu_s": self.load.cpu_s,
            "elapsed_s": self.load.elapsed_s,
        }
