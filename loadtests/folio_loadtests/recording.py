"""What all processes of the generator have reported: the whole run, merged. Knows no Locust."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from folio_loadtests.comparison import Comparison
from folio_loadtests.distribution import Counts
from folio_loadtests.sample import Cohort, Phase, Sample


@dataclass
class ProcessLoad:
    """How busy one process of the generator was while it measured.

    Attributes:
        phase: the phase that it has come to.
        num_open: its requests that have not ended.
        late: how late its timers were.
        cpu_s: processor seconds of all its threads.
        elapsed_s: over so many seconds.
    """

    phase: Phase = Phase.WARM_UP
    num_open: int = 0
    late: Counts = field(default_factory=Counts)
    cpu_s: float = 0.0
    elapsed_s: float = 0.0

    @property
    def cpu_share(self) -> float:
        """Of one core."""
        return self.cpu_s / self.elapsed_s if self.elapsed_s else 0.0


class Recording:
    """A run as far as it was reported.

    Attributes:
        samples: every request, without its single pauses, in the order of reports.
        pauses: between two tokens, by phase.
        comparisons: of resumed sessions with their references, and where their KV came from.
        faults: of the suite itself.
        processes: by name.
    """

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.pauses = {phase: Counts() for phase in Phase}
        self.comparisons: list[tuple[Comparison, Cohort]] = []
        self.faults: list[str] = []
        self.processes: dict[str, ProcessLoad] = {}

    def add_report(self, process: str, report: Mapping[str, Any]) -> None:
        """Merges what `Recorder.take_report` gave in that process."""
        for fields in report["samples"]:
            self.add(Sample.read(fields))
        for *values, cohort in report["comparisons"]:
            self.comparisons.append((Comparison(*values), Cohort(cohort)))
        self.faults += report["faults"]
        load = self.processes.setdefault(process, ProcessLoad())
        load.late.merge(Counts(report["late"]))
        load.phase, load.num_open = Phase(report["phase"]), report["num_open"]
        load.cpu_s, load.elapsed_s = report["cpu_s"], report["elapsed_s"]

    def add(self, sample: Sample) -> None:
        """One more request; its pauses are only counted, so that an hour of them takes little room."""
        for pause_s in sample.pauses_s:
            self.pauses[sample.phase].add(pause_s)
        self.samples.append(replace(sample, pauses_s=()))

    def of(self, phase: Phase) -> list[Sample]:
        """The samples of a phase."""
        return [sample for sample in self.samples if sample.phase is phase]

    @property
    def num_open(self) -> int:
        """Requests that have not ended, as far as is known."""
        return sum(load.num_open for load in self.processes.values())
