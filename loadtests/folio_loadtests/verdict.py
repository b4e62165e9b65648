"""What a run comes to: an exit status and the sentences behind it. Pure decisions."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from folio_loadtests.objectives import Objective
from folio_loadtests.recording import ProcessLoad

MOST_LATE_S = 0.010
MOST_CPU_SHARE = 0.8


class Status(enum.IntEnum):
    """Exit statuses."""

    PASSED = 0
    NOT_RUN = 1
    MISSED = 2
    WRONG = 3
    INVALID = 4


@dataclass(frozen=True)
class Verdict:
    """What a run comes to.

    Attributes:
        status: what the process exits with.
        reasons: why, a sentence each.
    """

    status: Status
    reasons: tuple[str, ...]


def judge(
    objectives: Sequence[Objective],
    *,
    num_measured: int,
    wrong: Sequence[str],
    processes: dict[str, ProcessLoad],
    faults: Sequence[str],
) -> Verdict:
    """The verdict on a run. A wrong answer outweighs all else: it is wrong however well it was measured.

    Args:
        objectives: as reached.
        num_measured: requests of the measurement.
        wrong: what was wrong with wrong answers, one each.
        processes: of the generator.
        faults: of the suite itself.
    """
    if wrong:
        reasons = tuple(f"Wrong output, {wrong.count(reason)} times: {reason}." for reason in dict.fromkeys(wrong))
        return Verdict(Status.WRONG, reasons)
    if invalid := [*_lags(processes), *(f"The suite itself failed: {fault}." for fault in dict.fromkeys(faults))]:
        return Verdict(Status.INVALID, tuple(invalid))
    if not num_measured:
        return Verdict(Status.INVALID, ("Nothing was measured.",))
    missed = tuple(
        f"{objective.name} is {objective.reached:.4g}; the bound is {objective.bound:.4g}."
        for objective in objectives
        if not objective.is_met
    )
    return Verdict(Status.MISSED, missed) if missed else Verdict(Status.PASSED, ("Every objective was met.",))


def _lags(processes: dict[str, ProcessLoad]) -> list[str]:
    reasons = []
    for name, load in processes.items():
        late_s = load.late.percentile(0.99)
        if late_s > MOST_LATE_S:
            bound = f"allowed are {MOST_LATE_S * 1000:.0f} ms"
            reasons.append(f"The generator ({name}) was {late_s * 1000:.1f} ms late at the 99th percentile; {bound}.")
        if load.cpu_share > MOST_CPU_SHARE:
            bound = f"allowed are {MOST_CPU_SHARE:.0%}"
            reasons.append(f"The generator ({name}) used {load.cpu_share:.0%} of a core; {bound}: add --processes.")
    return reasons
