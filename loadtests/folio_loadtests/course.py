"""The course of a run: prepare, warm up, measure without a pause in the load, let what is under way end.

Decides, and tells all processes through one function. Does not know Locust, nor how reports arrive.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from folio_client import Client, FolioError
from folio_client.warm_up import is_settled
from folio_loadtests.asking import Asker
from folio_loadtests.briefing import Briefing, Target
from folio_loadtests.errors import RunError
from folio_loadtests.recorder import Recorder
from folio_loadtests.recording import Recording
from folio_loadtests.references import Reference, make_references
from folio_loadtests.sample import Phase, Sample
from folio_loadtests.schedules import Schedule
from folio_loadtests.server_counts import MetricsPage, ServerCounts
from folio_loadtests.workload import Workload


@dataclass(frozen=True)
class Plan:
    """What a run is to be.

    Attributes:
        target: the server.
        workload: what users do.
        schedule: how many there are, and for how long.
        metrics: the server's own counts; None where they are not to be read.
        num_warm_up: requests after which the warm-up ends at the latest.
        warm_up_timeout_s: and seconds.
        drain_timeout_s: how long requests may take to end after the measurement.
        ready_timeout_s: how long the server may take to be ready.
        max_sessions: most sessions at a time from one source of arrivals.
    """

    target: Target
    workload: Workload
    schedule: Schedule
    metrics: MetricsPage | None
    num_warm_up: int
    warm_up_timeout_s: float
    drain_timeout_s: float
    ready_timeout_s: float
    max_sessions: int


class Course:
    """See the module.

    Args:
        plan: what is to be.
        recording: what the processes have reported so far.
        announce: tells every process, this one among them, where the run stands.

    Attributes:
        briefing: the last announcement; None before the preparation.
        warm_up_end: why the warm-up ended; empty before.
        notes: what the report should say besides figures.
        counts: the server's counts before the run and at the measurement's begin.
        start_s: when the measurement began, in seconds since 1970; None before.
        end_s: when it ended.
        num_unfinished: requests that had not ended when the run did.
    """

    def __init__(self, plan: Plan, recording: Recording, announce: Callable[[Briefing], None]) -> None:
        self.plan = plan
        self.recording = recording
        self._announce = announce
        self.briefing: Briefing | None = None
        self.warm_up_end = ""
        self.notes: list[str] = []
        self.counts: list[ServerCounts] = []
        self.start_s: float | None = None
        self.end_s: float | None = None
        self.num_unfinished = 0
        self._phase_start_s = 0.0

    def num_users(self) -> int | None:
        """How many users there should be now; None when the run is over. Called about once a second.

        Raises:
            RunError: the server is not there, or not what it should be.
        """
        if self.briefing is None:
            self._prepare()
        elapsed_s = time.monotonic() - self._phase_start_s
        phase = self._phase
        if phase is Phase.WARM_UP and (reason := self._warm_up_ends(elapsed_s)):
            self.warm_up_end = reason
            self._enter(Phase.MEASUREMENT)
            self.start_s, elapsed_s = time.time(), 0.0
        elif phase is Phase.MEASUREMENT and elapsed_s >= self.plan.schedule.duration_s:
            self._enter(Phase.ENDING)
            self.end_s, elapsed_s = time.time(), 0.0
        elif phase is Phase.ENDING and self._has_ended(elapsed_s):
            return None
        duration_s = self.plan.schedule.duration_s
        return self.plan.schedule.users_at(
            {Phase.WARM_UP: 0.0, Phase.MEASUREMENT: elapsed_s, Phase.ENDING: duration_s}[self._phase]
        )

    def begin(self, briefing: Briefing) -> None:
        """The warm-up begins."""
        self.briefing = briefing
        self._phase_start_s = time.monotonic()
        self._announce(briefing)

    def finish(self) -> None:
        """The load is over: notes what has come to an end with it."""
        if self.start_s is not None and self.end_s is None:
            self.end_s = time.time()
            self.notes.append("The run was interrupted.")
        self._count(lambda metrics: metrics.settled())

    @property
    def _phase(self) -> Phase:
        assert self.briefing is not None
        return self.briefing.phase

    def _enter(self, phase: Phase) -> None:
        assert self.briefing is not None
        if phase is Phase.MEASUREMENT:
            self._count(lambda metrics: metrics.read())
        self.briefing = replace(self.briefing, phase=phase)
        self._phase_start_s = time.monotonic()
        self._announce(self.briefing)

    def _warm_up_ends(self, elapsed_s: float) -> str:
        samples = [sample for sample in self.recording.of(Phase.WARM_UP) if sample.kind != "reference"]
        latencies_s = [sample.total_s for sample in samples if sample.cohort is not None]
        if len(samples) >= self.plan.num_warm_up:
            return f"{len(samples)} requests"
        if is_settled(latencies_s):
            return "the latencies had settled"
        if elapsed_s >= self.plan.warm_up_timeout_s:
            return f"{self.plan.warm_up_timeout_s:.0f} s were over before the latencies had settled"
        return ""

    def _has_ended(self, elapsed_s: float) -> bool:
        processes = self.recording.processes.values()
        if all(load.phase is Phase.ENDING and not load.num_open for load in processes):
            return True
        if elapsed_s < self.plan.drain_timeout_s:
            return False
        self.num_unfinished = self.recording.num_open
        return True

    def _count(self, read: Callable[[MetricsPage], ServerCounts]) -> None:
        """Reads the server's counts once more; where that fails there are none, and the report says so."""
        if self.plan.metrics is None or not self.counts:
            return
        try:
            self.counts.append(read(self.plan.metrics))
        except RunError as error:
            self.counts.clear()
            self.notes.append(str(error))

    def _prepare(self) -> None:
        """Waits for the server, asks what it is, and makes the references."""
        plan = self.plan
        with plan.target.client() as client:
            try:
                client.wait_ready(plan.ready_timeout_s)
                stats = client.admin.stats()
            except FolioError as error:
                raise RunError(f"{plan.target.url} cannot be tested: {error}") from error
            if plan.metrics is not None:
                self.counts.append(plan.metrics.settled())
            self.briefing = Briefing(
                phase=Phase.WARM_UP,
                target=plan.target,
                workload=self._servable(),
                page_size=stats.page_size,
                codec=stats.codec,
                arrival_rate=plan.schedule.arrival_rate / plan.schedule.num_users,
                max_sessions=plan.max_sessions,
                references=(),
            )
            references = self._references(client, stats.page_size)
        self.begin(replace(self.briefing, references=references))

    def _servable(self) -> Workload:
        """The workload without what the server has no model for."""
        workload, target = self.plan.workload, self.plan.target
        if "attention" not in workload.users or not workload.users["attention"].weight:
            return workload
        with replace(target, model=target.attention_model).client() as client:
            if client.is_ready():
                return workload
        self.notes.append(f"The server has no model {target.attention_model}: no attention steps.")
        users = {kind: user for kind, user in workload.users.items() if kind != "attention"}
        return workload.model_copy(update={"users": users})

    def _references(self, client: Client, page_size: int) -> tuple[Reference, ...]:
        """The references, whose requests open the warm-up: the cold start is among them."""
        workload = self.plan.workload
        if not workload.checks.share:
            self.notes.append("No answer was compared with a reference: checks.share is 0.")
            return ()
        recorder = Recorder()
        asker = Asker(recorder, _tell_nobody, page_size)
        made = make_references(asker, client, workload.checks, workload.texts, random.SystemRandom())
        for fields in recorder.take_report()["samples"]:
            self.recording.add(Sample.read(fields))
        return tuple(made)


def _tell_nobody(**_: object) -> None:
    """Locust's statistics begin when its users do."""
