"""Equal by the design's rule, as far as a client can tell: never wrong about what it calls wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from folio_loadtests.comparison import Answer, bound_of, compare, read_answer

VOCABULARY = 40


def answer_of(logits: np.ndarray[tuple[int, int], np.dtype[np.float64]], num_reported: int) -> Answer:
    """What the wire brings of greedy tokens behind logits `[tokens, vocabulary]`."""
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    best = np.argsort(-logprobs, axis=1)[:, :num_reported]
    positions = tuple(
        {int(token): float(row[token]) for token in tokens} for row, tokens in zip(logprobs, best, strict=True)
    )
    return Answer(tuple(int(tokens[0]) for tokens in best), positions, num_prompt_tokens=7)


def divergences(
    expected: np.ndarray[tuple[int, int], np.dtype[np.float64]], got: np.ndarray[tuple[int, int], np.dtype[np.float64]]
) -> list[float]:
    """Of each row, over the whole vocabulary."""
    p, q = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) for logits in (expected, got))
    return [float(value) for value in (p * np.log(p / q)).sum(axis=1)]


@given(
    seed=st.integers(0, 10**6),
    spread=st.sampled_from([0.001, 0.1, 1.0, 5.0]),
    noise=st.floats(0, 2),
    num_reported=st.integers(1, VOCABULARY),
)
def test_what_is_called_wrong_breaks_the_rule(seed: int, spread: float, noise: float, num_reported: int) -> None:
    draw = np.random.default_rng(seed)
    expected = draw.standard_normal((4, VOCABULARY)) * spread
    got = expected + draw.standard_normal(expected.shape) * noise
    comparison = compare(answer_of(expected, num_reported), answer_of(got, num_reported), codec="int8")
    true = divergences(expected, got)[: comparison.num_compared]
    assert comparison.worst <= max(true) + 1e-7
    if not comparison.is_equal:
        assert max(true) > bound_of("int8") - 1e-7


@given(seed=st.integers(0, 10**6), noise=st.floats(0, 4.9e-4), num_reported=st.integers(1, VOCABULARY))
def test_logits_within_the_bound_are_equal_without_compression(seed: int, noise: float, num_reported: int) -> None:
    draw = np.random.default_rng(seed)
    expected = draw.standard_normal((4, VOCABULARY))
    got = expected + draw.uniform(-noise, noise, expected.shape)
    comparison = compare(answer_of(expected, num_reported), answer_of(got, num_reported), codec="none")
    assert comparison.is_equal, comparison.reason


@pytest.mark.parametrize("codec", ["none", "int8", "int4"])
def test_another_history_is_wrong_although_the_first_tokens_agree(codec: str) -> None:
    draw = np.random.default_rng(0)
    expected = draw.standard_normal((6, VOCABULARY))
    expected[:, 3] += 5  # the best token in both
    got = expected.copy()
    got[4] += draw.standard_normal(VOCABULARY) * 0.3
    comparison = compare(answer_of(expected, 20), answer_of(got, 20), codec=codec)
    assert not comparison.is_equal
    assert comparison.num_compared == 5
    assert "token 5" in comparison.reason


def test_answers_part_at_a_tie_and_are_compared_no_further() -> None:
    expected = np.zeros((3, VOCABULARY))
    expected[:, 0] = 4.0
    expected[1, 5] = 4.0 - 4e-5
    got = expected.copy()
    got[1, 5] = 4.0 + 2e-5
    got[2] = 0.0  # another history by now
    comparison = compare(answer_of(expected, 20), answer_of(got, 20), codec="none")
    assert comparison.is_equal
    assert comparison.num_compared == 2
    assert comparison.tie_gap == pytest.approx(4e-5)


def test_other_tokens_before_the_answer_are_wrong() -> None:
    answer = answer_of(np.eye(VOCABULARY)[:2], 5)
    other = Answer(answer.token_ids, answer.positions, num_prompt_tokens=8)
    assert not compare(answer, other, codec="int8").is_equal


def test_a_shorter_answer_is_wrong() -> None:
    answer = answer_of(np.eye(VOCABULARY)[:2], 5)
    shorter = Answer(answer.token_ids[:1], answer.positions[:1], answer.num_prompt_tokens)
    assert not compare(answer, shorter, codec="int8").is_equal


def test_the_chosen_token_is_that_of_the_first_rank() -> None:
    entry = {"11": {"logprob": -0.5, "rank": 2}, "7": {"logprob": -0.1, "rank": 1, "decoded_token": "a"}}
    answer = read_answer([entry], 3)
    assert answer.token_ids == (7,)
    assert answer.positions == ({11: -0.5, 7: -0.1},)
    assert math.isclose(answer.positions[0][7], -0.1)
