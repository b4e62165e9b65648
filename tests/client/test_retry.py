"""When to ask again: pure decisions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folio_client import (
    ConnectionFailed,
    DeadlineExceeded,
    FolioError,
    IncompleteResponse,
    InvalidArgument,
    RetryPolicy,
    ServerError,
    Unavailable,
)

BUSY = Unavailable("busy")
LOST = ConnectionFailed("lost")


def delay_s(
    error: FolioError, num_attempts: int = 1, *, is_repeatable: bool = True, left_s: float = 100.0, draw: float = 0.5
) -> float | None:
    policy = RetryPolicy(max_attempts=5, first_delay_s=0.1, max_delay_s=0.3, draw=lambda: draw)
    return policy.delay_s(error, num_attempts, is_repeatable=is_repeatable, left_s=left_s)


def test_delays_double_up_to_the_longest() -> None:
    assert [delay_s(BUSY, attempt, draw=1.0) for attempt in range(1, 5)] == pytest.approx([0.1, 0.2, 0.3, 0.3])
    assert [delay_s(BUSY, attempt, draw=0.0) for attempt in range(1, 5)] == pytest.approx([0.05, 0.1, 0.15, 0.15])


def test_the_last_attempt_is_the_last() -> None:
    assert delay_s(BUSY, 5) is None


def test_a_lost_connection_is_repeated_only_where_that_does_no_harm() -> None:
    assert delay_s(LOST) is not None
    assert delay_s(LOST, is_repeatable=False) is None
    assert delay_s(BUSY, is_repeatable=False) is not None


@pytest.mark.parametrize("kind", [InvalidArgument, DeadlineExceeded, ServerError, IncompleteResponse])
def test_what_would_come_out_the_same_is_not_repeated(kind: type[FolioError]) -> None:
    assert delay_s(kind("no")) is None


@given(
    retry_after_ms=st.integers(min_value=0, max_value=60_000),
    num_attempts=st.integers(min_value=1, max_value=4),
    draw=st.floats(min_value=0, max_value=1),
    left_s=st.floats(min_value=0.001, max_value=120),
)
def test_never_before_the_server_says_and_never_beyond_the_deadline(
    retry_after_ms: int, num_attempts: int, draw: float, left_s: float
) -> None:
    busy = Unavailable("busy", retry_after_ms=retry_after_ms)
    found = delay_s(busy, num_attempts, left_s=left_s, draw=draw)
    if found is None:
        assert retry_after_ms / 1000 + 0.3 >= left_s
    else:
        assert retry_after_ms / 1000 <= found < left_s
