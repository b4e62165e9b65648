"""How load changes over a run: how many users there are at a time, and when sessions arrive. Pure functions."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

ShapeName: TypeAlias = Literal["steady", "ramp", "step", "spike", "soak", "poisson"]
SHAPES: tuple[ShapeName, ...] = get_args(ShapeName)
DEFAULT_DURATION_S: Mapping[ShapeName, float] = {name: 3600.0 if name == "soak" else 60.0 for name in SHAPES}
NUM_STEPS = 5
SPIKE_FACTOR = 4


@dataclass(frozen=True)
class Schedule:
    """A run's course.

    Attributes:
        shape: its name. `soak` is `steady` for longer; in `poisson` users are sources of arriving sessions.
        num_users: the most at a time.
        duration_s: of the measurement, in seconds.
        arrival_rate: sessions a second over all sources, in `poisson`.
    """

    shape: ShapeName
    num_users: int
    duration_s: float
    arrival_rate: float = 1.0

    def users_at(self, time_s: float) -> int:
        """How many users there are `time_s` after the measurement began; before it, those that it begins with."""
        progress = min(max(time_s / self.duration_s, 0.0), 1.0)
        return min(max(_COURSES[self.shape](self.num_users, progress), 1), self.num_users)


def arrivals(rate: float, draw: random.Random) -> Iterator[float]:
    """Moments at which sessions arrive, ascending, in seconds from the start: a Poisson process of `rate` a second."""
    time_s = 0.0
    while True:
        time_s += draw.expovariate(rate)
        yield time_s


def _steady(num_users: int, _: float) -> int:
    return num_users


def _ramp(num_users: int, progress: float) -> int:
    return round(num_users * progress)


def _step(num_users: int, progress: float) -> int:
    step = min(int(progress * NUM_STEPS), NUM_STEPS - 1) + 1
    return round(num_users * step / NUM_STEPS)


def _spike(num_users: int, progress: float) -> int:
    return num_users if 0.4 <= progress < 0.6 else num_users // SPIKE_FACTOR


_COURSES: Mapping[ShapeName, Callable[[int, float], int]] = {
    "steady": _steady,
    "soak": _steady,
    "poisson": _steady,
    "ramp": _ramp,
    "step": _step,
    "spike": _spike,
}
