"""When two runs are equal: sums differ in their last bits between batch shapes, and what follows a tie may differ.

Uncompressed, logits agree within 5e-4; with a lossy codec the Kullback-Leibler divergence of each token is at most
1e-4, or what a test says. Tokens agree, or the two best logits lie within 1e-4 of each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from tests.backend.engine_harness import EngineHarness, Turn

MOST_LOGIT_DIFFERENCE = 5e-4
MOST_DIVERGENCE = 1e-4
TIE = 1e-4


@dataclass(frozen=True)
class Run:
    """Greedy tokens and the logits behind them, `[tokens, vocabulary]`."""

    token_ids: list[int]
    logits: torch.Tensor


def run_of(harness: EngineHarness, turn: Turn) -> Run:
    """What an ended turn produced."""
    assert turn.answer.error is None, turn.answer.error
    return Run(turn.output_ids, harness.logits(turn))


@torch.inference_mode()
def assert_as_model(model: PreTrainedModel, prompt_ids: Sequence[int], run: Run) -> None:
    """The run's tokens are the model's own, by its `generate` and by its forward over them."""
    inputs = torch.tensor([list(prompt_ids)])
    generate: Callable[..., torch.Tensor] = model.generate  # type: ignore[assignment] # decorated without types
    generated = generate(
        inputs,
        attention_mask=torch.ones_like(inputs),
        max_new_tokens=len(run.token_ids),
        min_new_tokens=None,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )[0, len(prompt_ids) :].tolist()
    forced = torch.tensor([[*prompt_ids, *run.token_ids[:-1]]])
    logits = model(forced, use_cache=False).logits[0, len(prompt_ids) - 1 :]
    assert (logits - run.logits).abs().max() <= MOST_LOGIT_DIFFERENCE
    for index, (own, ours) in enumerate(zip(generated, run.token_ids, strict=True)):
        if own != ours:
            assert_tie(logits[index], own, ours)
            return


def assert_equal_runs(
    expected: Run, got: Run, *, codec: str = "none", most_divergence: float = MOST_DIVERGENCE
) -> None:
    """The same tokens from the same logits, up to a tie; ties are rare enough to leave most of a run."""
    num_equal = 0
    for index, (ours, theirs) in enumerate(zip(got.token_ids, expected.token_ids, strict=True)):
        assert_close(expected.logits[index], got.logits[index], codec, most_divergence)
        if ours != theirs:
            assert_tie(expected.logits[index], ours, theirs)
            break
        num_equal += 1
    assert num_equal > len(expected.token_ids) // 2, f"a tie after {num_equal} tokens: choose another prompt"


def assert_close(
    expected: torch.Tensor, got: torch.Tensor, codec: str, most_divergence: float = MOST_DIVERGENCE
) -> None:
    """Two rows of logits, by the rule for the codec."""
    if codec == "none":
        assert (expected - got).abs().max() <= MOST_LOGIT_DIFFERENCE
        return
    expected, got = expected.double().log_softmax(-1), got.double().log_softmax(-1)
    assert (expected.exp() * (expected - got)).sum() <= most_divergence


def assert_tie(logits: torch.Tensor, one: int, other: int) -> None:
    """Both tokens are the best, within what sums differ by."""
    assert logits.max() - torch.minimum(logits[one], logits[other]) <= TIE
