"""A line on how a run goes, now and then."""

from __future__ import annotations

import time
from collections import Counter

from folio_loadtests.course import Course
from folio_loadtests.distribution import Distribution
from folio_loadtests.sample import Outcome, Phase

EVERY_S = 5.0


class Progress:
    """Says how a run goes, every few seconds and at each new phase.

    It looks at each sample once: going through an hour of them again would hold the generator up.

    Args:
        course: the run.
    """

    def __init__(self, course: Course) -> None:
        self._course = course
        self._last: tuple[Phase | None, float] = (None, 0.0)
        self._num_seen = 0
        self._counts: Counter[tuple[Phase, Outcome]] = Counter()

    def line(self) -> str:
        """What there is to say now; empty where nothing is."""
        briefing = self._course.briefing
        if briefing is None:
            return ""
        phase, said_s = self._last
        if briefing.phase is phase and time.monotonic() - said_s < EVERY_S:
            return ""
        self._last = (briefing.phase, time.monotonic())
        return self._line(briefing.phase)

    def _line(self, phase: Phase) -> str:
        new = self._course.recording.samples[self._num_seen :]
        self._num_seen += len(new)
        self._counts.update((sample.phase, sample.outcome) for sample in new)
        counts = {outcome: self._counts[phase, outcome] for outcome in Outcome}
        first_token = Distribution.of(sample.intended_first_token_s for sample in new if sample.phase is phase)
        shown = [f"{phase.value:12}"]
        if phase is Phase.MEASUREMENT and self._course.start_s is not None:
            elapsed_s = min(time.time() - self._course.start_s, self._course.plan.schedule.duration_s)
            shown.append(f"{elapsed_s:.0f} of {self._course.plan.schedule.duration_s:.0f} s,")
        shown.append(f"{sum(counts.values())} requests")
        shown += [f", {count} {outcome.value}" for outcome, count in counts.items() if outcome is not Outcome.OK]
        if first_token.num_values:
            shown.append(f", first token p95 {first_token.p95:.3f} s lately")
        return " ".join(shown).replace(" ,", ",")
