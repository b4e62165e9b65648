"""Batches: which prompts are asked for, and what becomes of failures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folio_client import BatchFailed, Choice, FolioError, GenerateOptions, GenerateResult, InvalidArgument, Usage
from folio_client.batch import BatchPlan, plan_batch

GREEDY: GenerateOptions = {"temperature": 0}


def plan(prompts: list[str], options: GenerateOptions = GREEDY, deduplicate: bool | None = None) -> BatchPlan:
    return plan_batch(prompts, options, deduplicate=deduplicate, max_concurrency=4)


def answer(prompt: str) -> GenerateResult:
    return GenerateResult((Choice(f"<{prompt}>", "stop"),), Usage(), "r")


@given(st.lists(st.sampled_from("abcd")), st.sampled_from([True, False, None]))
def test_every_prompt_gets_its_own_answer(prompts: list[str], deduplicate: bool | None) -> None:
    planned = plan(prompts, deduplicate=deduplicate)
    results = planned.results([answer(prompt) for prompt in planned.prompts])
    assert [result.text for result in results] == [f"<{prompt}>" for prompt in prompts]
    assert len(planned.prompts) == (len(prompts) if deduplicate is False else len(set(prompts)))


@pytest.mark.parametrize(
    ("options", "deduplicate", "num_asked"),
    [
        (GREEDY, None, 2),
        ({"seed": 7}, None, 2),
        ({}, None, 3),
        ({"temperature": 0.8}, None, 3),
        ({"sampling": {"temperature": 0}}, None, 2),
        ({}, True, 2),
        (GREEDY, False, 3),
    ],
)
def test_prompts_are_shared_where_their_answer_is_determined(
    options: GenerateOptions, deduplicate: bool | None, num_asked: int
) -> None:
    assert len(plan(["a", "b", "a"], options, deduplicate).prompts) == num_asked


def test_failures_leave_the_other_answers() -> None:
    planned = plan(["a", "b", "a", "c"])
    outcomes = [FolioError("no") if prompt == "a" else answer(prompt) for prompt in planned.prompts]
    with pytest.raises(BatchFailed, match=r"^2 of 4 prompts failed; prompt 0: no$") as failure:
        planned.results(outcomes)
    texts = [None if result is None else result.text for result in failure.value.results]
    assert texts == [None, "<b>", None, "<c>"]
    assert failure.value.errors.keys() == {0, 2}


def test_what_makes_no_batch_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="one text"):
        plan_batch("abc", {}, deduplicate=None, max_concurrency=1)
    with pytest.raises(InvalidArgument, match="max_concurrency is 0"):
        plan_batch([], {}, deduplicate=None, max_concurrency=0)
    with pytest.raises(InvalidArgument, match="request_id"):
        plan_batch(["a"], {"request_id": "r"}, deduplicate=None, max_concurrency=1)
