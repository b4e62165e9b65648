"""The shapes of load."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folio_loadtests.schedules import DEFAULT_DURATION_S, SHAPES, Schedule, arrivals


@given(
    shape=st.sampled_from(SHAPES),
    num_users=st.integers(1, 500),
    duration_s=st.floats(1, 10_000),
    moment=st.floats(-10, 20_000),
)
def test_there_is_always_somebody_and_never_too_many(
    shape: str, num_users: int, duration_s: float, moment: float
) -> None:
    schedule = Schedule(shape, num_users, duration_s)  # type: ignore[arg-type]
    assert 1 <= schedule.users_at(moment) <= num_users


@given(num_users=st.integers(1, 500), moments=st.tuples(st.floats(0, 60), st.floats(0, 60)))
@pytest.mark.parametrize("shape", ["ramp", "step"])
def test_a_ramp_and_steps_never_go_down_and_reach_the_top(
    shape: str, num_users: int, moments: tuple[float, float]
) -> None:
    schedule = Schedule(shape, num_users, 60.0)  # type: ignore[arg-type]
    earlier, later = sorted(moments)
    assert schedule.users_at(earlier) <= schedule.users_at(later)
    assert schedule.users_at(60.0) == num_users


def test_a_spike_is_a_quarter_then_all_then_a_quarter() -> None:
    schedule = Schedule("spike", 40, 100.0)
    assert [schedule.users_at(moment) for moment in (0, 39, 41, 59, 61, 100)] == [10, 10, 40, 40, 10, 10]


def test_a_soak_takes_an_hour_unless_told() -> None:
    assert DEFAULT_DURATION_S["soak"] == 3600


@given(rate=st.floats(0.1, 100), seed=st.integers(0, 1000))
def test_arrivals_come_at_their_rate_without_memory(rate: float, seed: int) -> None:
    moments = list(itertools.islice(arrivals(rate, random.Random(seed)), 2000))
    pauses = [later - earlier for earlier, later in itertools.pairwise([0.0, *moments])]
    assert all(pause >= 0 for pause in pauses)
    mean = sum(pauses) / len(pauses)
    assert mean == pytest.approx(1 / rate, rel=0.15)
    # Of exponential pauses the deviation is the mean; of regular ones it would be nothing.
    deviation = (sum((pause - mean) ** 2 for pause in pauses) / len(pauses)) ** 0.5
    assert deviation == pytest.approx(mean, rel=0.2)
