"""What a request leaves behind, and whose history counts as what."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folio_loadtests.sample import Cohort, Outcome, Phase, Sample, cohort_of

PAGE = 64


@pytest.mark.parametrize(
    ("num_history_tokens", "num_cached_tokens", "cohort"),
    [
        (None, 0, Cohort.COLD),
        (None, 64, Cohort.SHARED),
        (200, 192, Cohort.RESIDENT),
        (200, 207, Cohort.RESIDENT),
        (200, 128, Cohort.EVICTED),
        (200, 0, Cohort.EVICTED),
        (40, 0, Cohort.RESIDENT),
    ],
)
def test_a_history_is_resident_while_all_its_whole_pages_are(
    num_history_tokens: int | None, num_cached_tokens: int, cohort: Cohort
) -> None:
    assert cohort_of(num_history_tokens, num_cached_tokens, PAGE) is cohort


@given(
    phase=st.sampled_from(Phase),
    outcome=st.sampled_from(Outcome),
    cohort=st.none() | st.sampled_from(Cohort),
    first_token_s=st.none() | st.floats(0, 10),
    late_s=st.floats(0, 10),
    pauses_s=st.lists(st.floats(0, 1), max_size=4),
)
def test_a_sample_survives_the_way_to_another_process(
    phase: Phase,
    outcome: Outcome,
    cohort: Cohort | None,
    first_token_s: float | None,
    late_s: float,
    pauses_s: list[float],
) -> None:
    sample = Sample(phase, "chat", outcome, "", cohort, 1e9, late_s, 2.0, first_token_s, None, 5, 4, 3, tuple(pauses_s))
    assert Sample.read(json.loads(json.dumps(sample.fields()))) == sample
    assert sample.latency_s == late_s + 2.0
    assert sample.intended_first_token_s == (None if first_token_s is None else late_s + first_token_s)
