"""Sampling: a batch against one row at a time, frequencies, and what rows of a batch do to each other."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from folio_backend.errors import Internal
from folio_backend.sampler import SampledToken, SamplingRow, sample
from folio_backend.sampling_parameters import SamplingParameters
from tests.backend.sampling_reference import kept_weights, possible_tokens, uniform_number

if TYPE_CHECKING:
    from collections.abc import Sequence

GREEDY = SamplingParameters(temperature=0.0)


def token_ids(answers: Sequence[SampledToken | Internal]) -> list[int | None]:
    return [answer.token_id if isinstance(answer, SampledToken) else None for answer in answers]


def row(parameters: SamplingParameters, seed: int = 0, **others: object) -> SamplingRow:
    return dataclasses.replace(SamplingRow(parameters, seed, choice=0, position=0), **others)  # type: ignore[arg-type]


def off_or(value: float, used: st.SearchStrategy[float]) -> st.SearchStrategy[float]:
    return st.just(value) | used


@st.composite
def parameter_sets(draw: st.DrawFn) -> SamplingParameters:
    return SamplingParameters(
        temperature=draw(st.sampled_from([0.0, 0.2, 1.0, 2.0])),
        top_k=draw(st.sampled_from([0, 0, 1, 5, 255, 256, 257, 300, 4999])),
        top_p=draw(off_or(1.0, st.floats(0.01, 0.999))),
        min_p=draw(off_or(0.0, st.floats(0.001, 1.0))),
        repetition_penalty=draw(off_or(1.0, st.floats(0.5, 2.0))),
        presence_penalty=draw(off_or(0.0, st.floats(-2.0, 2.0))),
        frequency_penalty=draw(off_or(0.0, st.floats(-2.0, 2.0))),
    )


@st.composite
def batches(draw: st.DrawFn) -> tuple[torch.Tensor, list[SamplingRow]]:
    """Logits, some steep, some so flat that hundreds of tokens matter, some full of ties; and their rows."""
    vocabulary_size = draw(st.sampled_from([3, 40, 256, 257, 258, 700, 5000]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    logits, rows = [], []
    ids = st.integers(0, vocabulary_size - 1)
    for _ in range(draw(st.integers(1, 4))):
        values = torch.randn(vocabulary_size, generator=generator) * draw(st.sampled_from([0.05, 1.0, 6.0]))
        logits.append(values.round() if draw(st.booleans()) else values)
        rows.append(
            SamplingRow(
                draw(parameter_sets()),
                seed=draw(st.integers(-(2**63), 2**63 - 1)),
                choice=draw(st.integers(0, 3)),
                position=draw(st.integers(0, 5000)),
                prompt_token_ids=draw(st.lists(ids, max_size=8)),
                output_token_ids=draw(st.lists(ids, max_size=8)),
                forbidden_token_ids=draw(st.lists(ids, max_size=2)),
            )
        )
    return torch.stack(logits), rows


@given(batch=batches())
@settings(deadline=None)
def test_every_row_gets_what_one_row_at_a_time_gives(batch: tuple[torch.Tensor, list[SamplingRow]]) -> None:
    logits, rows = batch
    before = logits.clone()
    for values, sampling_row, token_id in zip(logits, rows, token_ids(sample(logits, rows)), strict=True):
        assert token_id in possible_tokens(values.double().numpy(), sampling_row)
    assert torch.equal(logits, before)


@given(batch=batches(), data=st.data())
@settings(deadline=None)
def test_batch_mates_change_nothing(batch: tuple[torch.Tensor, list[SamplingRow]], data: st.DataObject) -> None:
    logits, rows = batch
    together = token_ids(sample(logits, rows))
    alone = [token_ids(sample(logits[index : index + 1], [rows[index]]))[0] for index in range(len(rows))]
    order = data.draw(st.permutations(range(len(rows))))
    shuffled = token_ids(sample(logits[list(order)], [rows[index] for index in order]))
    assert together == alone
    assert shuffled == [together[index] for index in order]


@pytest.mark.parametrize(
    "parameters",
    [
        SamplingParameters(),
        SamplingParameters(temperature=0.5),
        SamplingParameters(min_p=0.2),
        SamplingParameters(top_k=4),
        SamplingParameters(top_p=0.8),
        SamplingParameters(temperature=1.5, top_k=12, top_p=0.9, min_p=0.05),
    ],
)
@pytest.mark.parametrize("varied", ["seed", "position", "choice"])
def test_tokens_come_as_often_as_their_probability_says(parameters: SamplingParameters, varied: str) -> None:
    num_draws = 8000
    values = torch.randn(30, generator=torch.Generator().manual_seed(1))
    rows = [row(parameters, **{varied: number}) for number in range(num_draws)]
    drawn = torch.tensor([token or 0 for token in token_ids(sample(values.expand(num_draws, -1), rows))])
    weights = kept_weights(values.double().numpy(), parameters)
    expected = num_draws * weights / weights.sum()
    counts = np.bincount(drawn.numpy(), minlength=30)
    deviations = np.abs(counts - expected) / np.sqrt(np.maximum(expected * (1 - expected / num_draws), 1e-9))
    assert deviations.max() < 4.5
    assert counts[expected == 0].sum() == 0


def test_a_flat_nucleus_far_beyond_the_candidates_is_drawn_from_evenly() -> None:
    num_draws, vocabulary_size = 300, 20_000
    rows = [row(SamplingParameters(top_p=0.5), seed) for seed in range(num_draws)]
    drawn = token_ids(sample(torch.zeros(num_draws, vocabulary_size), rows))
    expected = [int(uniform_number(seed, 0, 0) * vocabulary_size / 2) for seed in range(num_draws)]
    assert drawn == expected


def test_top_p_is_a_share_of_what_top_k_leaves_also_beyond_the_candidates() -> None:
    logits = torch.full((300, 5000), 0.05).log()
    logits[:, :200] = 0.0
    rows = [row(SamplingParameters(top_k=300, top_p=0.4), seed) for seed in range(300)]
    drawn = [token for token in token_ids(sample(logits, rows)) if token is not None]
    assert max(drawn) in range(75, 82)  # 0.4 of 200 tokens of weight 1 and 100 of weight 0.05


class WideOperations(TorchDispatchMode):
    """Records the operations on tensors at least `width` wide."""

    def __init__(self, width: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.width = width
        self.names: list[str] = []

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        if any(isinstance(arg, torch.Tensor) and arg.ndim and arg.shape[-1] >= self.width for arg in args):
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_greedy_rows_cost_one_pass_over_the_vocabulary() -> None:
    logits = torch.randn(4, 9000, generator=torch.Generator().manual_seed(4))
    with WideOperations(9000) as operations:
        sample(logits, [row(GREEDY)] * 4)
    assert operations.names == ["max"]


@pytest.mark.parametrize(
    "parameters",
    [
        SamplingParameters(top_p=0.95),
        SamplingParameters(top_k=256),
        SamplingParameters(top_k=50, temperature=0.001),
        SamplingParameters(top_k=9000),
        SamplingParameters(min_p=0.1),
    ],
)
def test_rows_are_not_sorted_where_256_candidates_suffice(parameters: SamplingParameters) -> None:
    logits = torch.randn(4, 9000, generator=torch.Generator().manual_seed(5)) * 10
    with WideOperations(258) as operations:
        sample(logits, [row(parameters, seed) for seed in range(4)])
    assert "sort" not in operations.names


def test_top_k_keeps_the_lower_of_two_equal_tokens() -> None:
    logits = torch.zeros(200, 600)
    rows = [row(SamplingParameters(top_k=top_k), seed) for seed in range(40) for top_k in (1, 3, 256, 257, 400)]
    drawn = token_ids(sample(logits, rows))
    assert all(token is not None and token < r.parameters.top_k for token, r in zip(drawn, rows, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_greedy_rows_take_the_argmax_in_any_dtype(dtype: torch.dtype) -> None:
    logits = torch.randn(16, 5000, generator=torch.Generator().manual_seed(2)).to(dtype)
    assert token_ids(sample(logits, [row(GREEDY)] * 16)) == logits.argmax(dim=-1).tolist()


@pytest.mark.parametrize("parameters", [GREEDY, SamplingParameters(), SamplingParameters(top_p=0.9, min_p=0.1)])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_row_that_is_not_finite_fails_alone(parameters: SamplingParameters, bad: float) -> None:
    logits = torch.randn(3, 100, generator=torch.Generator().manual_seed(3))
    rows = [row(parameters, seed) for seed in range(3)]
    good = sample(logits, rows)
    logits[1, 17] = bad
    answers = sample(logits, rows)
    assert isinstance(answers[1], Internal)
    assert [answers[0], answers[2]] == [good[0], good[2]]


@pytest.mark.parametrize("parameters", [GREEDY, SamplingParameters(), SamplingParameters(top_k=2)])
def test_a_row_without_any_token_left_fails_alone(parameters: SamplingParameters) -> None:
    logits = torch.zeros(3, 4)
    logits[0] = -torch.inf
    rows = [row(parameters), row(parameters, forbidden_token_ids=range(4)), row(parameters)]
    answers = sample(logits, rows)
    assert [type(answer) for answer in answers] == [Internal, Internal, SampledToken]


@pytest.mark.parametrize("parameters", [GREEDY, SamplingParameters(), SamplingParameters(top_p=0.9)])
def test_tokens_ruled_out_or_forbidden_never_come(parameters: SamplingParameters) -> None:
    logits = torch.zeros(200, 6)
    logits[:, :2] = -torch.inf
    rows = [row(parameters, seed, forbidden_token_ids=(2, 3)) for seed in range(200)]
    assert set(token_ids(sample(logits, rows))) <= {4, 5}


@pytest.mark.parametrize(("penalty", "top_k", "expected"), [(1e-300, 0, 1), (1e6, 1, 3)])
def test_an_extreme_penalty_leaves_the_right_answer(penalty: float, top_k: int, expected: int) -> None:
    logits = torch.tensor([[0.0, 3.0, -3.0, 1.0]])
    parameters = SamplingParameters(repetition_penalty=penalty, top_k=top_k)
    assert token_ids(sample(logits, [row(parameters, prompt_token_ids=(0, 1, 2))])) == [expected]


def test_greedy_rows_are_penalised_too() -> None:
    logits = torch.tensor([[3.0, 2.9, 0.0]] * 4)
    rows = [
        row(GREEDY, prompt_token_ids=(0,), output_token_ids=(0, 0)),
        row(dataclasses.replace(GREEDY, repetition_penalty=1.1), prompt_token_ids=(0,)),
        row(dataclasses.replace(GREEDY, presence_penalty=0.2), prompt_token_ids=(0,)),
        row(dataclasses.replace(GREEDY, frequency_penalty=0.06), output_token_ids=(0, 0)),
    ]
    assert token_ids(sample(logits, rows)) == [0, 1, 0, 1]


@given(seed=st.integers(0, 2**32), num_top=st.integers(0, 20), vocabulary_size=st.sampled_from([5, 300]))
@settings(deadline=None)
def test_logprobs_are_those_of_the_raw_logits(seed: int, num_top: int, vocabulary_size: int) -> None:
    logits = torch.randn(1, vocabulary_size, generator=torch.Generator().manual_seed(seed)) * 3
    parameters = SamplingParameters(
        temperature=2.0, min_p=0.001, repetition_penalty=1.5, logprobs=num_top, presence_penalty=1.0
    )
    (answer,) = sample(logits, [row(parameters, seed, output_token_ids=range(5))])
    assert isinstance(answer, SampledToken)
    logprobs = logits[0].double().log_softmax(dim=-1)
    likeliest = logprobs.argsort(descending=True).tolist()
    expected = likeliest[:num_top]
    if answer.token_id not in expected:
        expected.append(answer.token_id)
    assert answer.logprob == pytest.approx(logprobs[answer.token_id].item(), abs=1e-5)
    assert [entry[0] for entry in answer.top_logprobs] == expected
    for token_id, logprob, rank in answer.top_logprobs:
        assert logprob == pytest.approx(logprobs[token_id].item(), abs=1e-5)
        assert rank == likeliest.index(token_id) + 1


def test_only_rows_that_ask_get_logprobs() -> None:
    rows = [row(GREEDY), row(GREEDY, needs_logprob=True), row(dataclasses.replace(GREEDY, logprobs=3))]
    first, second, third = sample(torch.tensor([[0.0, 1.0, -torch.inf]] * 3), rows)
    assert first == SampledToken(1)
    assert isinstance(second, SampledToken)
    assert isinstance(third, SampledToken)
    assert second.logprob == third.logprob == pytest.approx(-0.31326, abs=1e-4)
    assert (second.top_logprobs, [entry[::2] for entry in third.top_logprobs]) == ((), [(1, 1), (0, 2)])


def test_a_draw_hangs_on_seed_choice_and_position() -> None:
    logits = torch.zeros(1, 1_000_000)
    numbers = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (-1, 0, 0), (2**63 - 1, 3, 9)]
    drawn = []
    for seed, choice, position in numbers:
        (answer,) = sample(logits, [SamplingRow(SamplingParameters(), seed, choice, position)])
        assert isinstance(answer, SampledToken)
        assert answer.token_id == pytest.approx(uniform_number(seed, choice, position) * 1e6, abs=1)
        drawn.append(answer.token_id)
    assert len(set(drawn)) == len(numbers)


def test_an_empty_batch_is_an_empty_answer() -> None:
    assert sample(torch.empty(0, 10), []) == []
