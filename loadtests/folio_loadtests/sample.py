"""One request as the load test remembers it; times and counts only, nothing of what was said."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any


class Phase(str, enum.Enum):
    """The parts of a run, in their order. A request belongs to the one in which it was meant to start."""

    WARM_UP = "warm-up"
    MEASUREMENT = "measurement"
    ENDING = "ending"


class Outcome(str, enum.Enum):
    """What a request came to.

    `REFUSED` is a limit doing its work and no failure; `WRONG` is an answer that should have been another.
    """

    OK = "ok"
    REFUSED = "refused"
    FAILED = "failed"
    WRONG = "wrong"


class Cohort(str, enum.Enum):
    """Where the KV of a generation's history came from.

    `COLD` found nothing, `SHARED` found the beginning of somebody else's prompt, `RESIDENT` and `EVICTED` resumed a
    session whose pages were all there or were computed again in part. `RESTORED` waits for the disk tier.
    """

    COLD = "cold"
    SHARED = "shared prefix"
    RESIDENT = "resident"
    EVICTED = "evicted, recomputed"
    RESTORED = "restored after a restart"


@dataclass(frozen=True)
class Sample:
    """One request.

    Attributes:
        phase: when it was meant to start.
        kind: what asked: a kind of user, or "reference".
        outcome: what it came to.
        reason: why it is not OK, without content.
        cohort: None where it generates nothing.
        intended_s: when it should have been sent, in seconds since 1970.
        late_s: how much later it was sent.
        total_s: from sending it to its end.
        first_token_s: from sending it to its first text; None where there was none.
        inter_token_s: mean pause between two tokens; None with fewer than two.
        num_prompt_tokens: of a generation, the history included; so the next two.
        num_cached_tokens: prompt tokens that were not computed again.
        num_generated_tokens: tokens of the answer.
        pauses_s: between two tokens, each.
    """

    phase: Phase
    kind: str
    outcome: Outcome
    reason: str
    cohort: Cohort | None
    intended_s: float
    late_s: float
    total_s: float
    first_token_s: float | None = None
    inter_token_s: float | None = None
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_generated_tokens: int = 0
    pauses_s: tuple[float, ...] = ()

    @property
    def latency_s(self) -> float:
        """From the intended start to the end."""
        return self.late_s + self.total_s

    @property
    def intended_first_token_s(self) -> float | None:
        """From the intended start to the first text."""
        return None if self.first_token_s is None else self.late_s + self.first_token_s

    def fields(self) -> list[Any]:
        """What `read` takes: values that any wire carries."""
        return [value.value if isinstance(value, enum.Enum) else value for value in astuple(self)]

    @classmethod
    def read(cls, fields: Sequence[Any]) -> Sample:
        """The sample that `fields` was made of."""
        values: list[Any] = list(fields)
        values[0], values[2] = Phase(values[0]), Outcome(values[2])
        values[4] = None if values[4] is None else Cohort(values[4])
        values[-1] = tuple(values[-1])
        return cls(*values)


def cohort_of(num_history_tokens: int | None, num_cached_tokens: int, page_size: int) -> Cohort:
    """The cohort of a generation.

    Args:
        num_history_tokens: tokens of the session's last prompt, all of which are in this one; None where it resumes
            nothing.
        num_cached_tokens: what the server says it did not compute again.
        page_size: tokens of a page. A history of which all whole pages were found is resident: the open one is given up
            by every idle session in time, and computed again at the price of a page.
    """
    if num_history_tokens is None:
        return Cohort.SHARED if num_cached_tokens else Cohort.COLD
    num_whole = num_history_tokens // page_size * page_size
    return Cohort.RESIDENT if num_cached_tokens >= num_whole else Cohort.EVICTED
