"""With every codec, runs that are cut up, preempted, recomputed or shared equal the uninterrupted one.

That is the page rule: what a page holds hangs on the tokens before it alone.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.backend.conftest import NewEngine
from tests.backend.run_equality import Run, assert_equal_runs, run_of
from tests.backend.tiny_models import random_ids

CODECS = ["none", "int8", "k8v4", "int4", "k4v2", "int4+none"]
"""The last one: a layer of each."""

PROMPT = random_ids(330, seed=3)
NUM_TOKENS = 70

pytestmark = pytest.mark.parametrize("codec", CODECS)


@pytest.fixture
def uninterrupted(new_engine: NewEngine, codec: str) -> Callable[[list[int], int], Run]:
    """Runs a prompt alone, in one chunk, in an engine of its own."""

    def run(prompt: list[int], num_tokens: int) -> Run:
        engine = new_engine(codec=codec, max_step_tokens=1024)
        turn = engine.submit_ids(prompt, num_tokens)
        engine.run()
        return run_of(engine, turn)

    return run


@pytest.mark.parametrize("max_step_tokens", [64, 100])
def test_chunked(
    codec: str, max_step_tokens: int, new_engine: NewEngine, uninterrupted: Callable[[list[int], int], Run]
) -> None:
    engine = new_engine(codec=codec, max_step_tokens=max_step_tokens)
    turn = engine.submit_ids(PROMPT, NUM_TOKENS)
    engine.run()
    assert_equal_runs(uninterrupted(PROMPT, NUM_TOKENS), run_of(engine, turn), codec=codec)


def test_preempted(codec: str, new_engine: NewEngine, uninterrupted: Callable[[list[int], int], Run]) -> None:
    engine = new_engine(codec=codec, raw_pages=9, sealed_pages=5)
    prompts = [random_ids(140, seed=5), random_ids(180, seed=6), random_ids(200, seed=7)]
    turns = [engine.submit_ids(prompt, NUM_TOKENS) for prompt in prompts]
    engine.run()
    assert engine.engine.parts.scheduler.num_preemptions > 0
    for prompt, turn in zip(prompts, turns, strict=True):
        assert_equal_runs(uninterrupted(prompt, NUM_TOKENS), run_of(engine, turn), codec=codec)


def test_evicted_and_recomputed(
    codec: str, new_engine: NewEngine, uninterrupted: Callable[[list[int], int], Run]
) -> None:
    engine = new_engine(codec=codec, raw_pages=9, sealed_pages=8)
    first = engine.submit_ids(PROMPT, 20, session_id="s")
    engine.run()
    engine.submit_ids(random_ids(500, seed=4), 1)
    engine.run()
    assert engine.cache.store.evictions["cached"] > 0
    assert engine.cache.store.evictions["idle"] > 0
    second = engine.submit_ids(random_ids(20), NUM_TOKENS, session_id="s")
    engine.run()
    history = PROMPT + first.output_ids
    assert (second.answer.responses[0].num_cached_tokens or 0) < len(history) - 64
    assert_equal_runs(uninterrupted(history + random_ids(20), NUM_TOKENS), run_of(engine, second), codec=codec)


def test_resumed(codec: str, new_engine: NewEngine, uninterrupted: Callable[[list[int], int], Run]) -> None:
    engine = new_engine(codec=codec)
    first = engine.submit_ids(PROMPT, NUM_TOKENS, session_id="s")
    engine.run()
    second = engine.submit_ids(random_ids(20), NUM_TOKENS, session_id="s")
    engine.run()
    history = PROMPT + first.output_ids
    assert second.answer.responses[0].num_cached_tokens == len(history) - 1
    assert_equal_runs(uninterrupted(history + random_ids(20), NUM_TOKENS), run_of(engine, second), codec=codec)


def test_shared(codec: str, new_engine: NewEngine, uninterrupted: Callable[[list[int], int], Run]) -> None:
    engine = new_engine(codec=codec)
    prompts = [PROMPT + random_ids(count, seed=8) for count in (3, 90)]
    turns = [engine.submit_ids(prompt, NUM_TOKENS) for prompt in prompts]
    engine.run()
    assert turns[1].answer.responses[0].num_cached_tokens == len(PROMPT) // 64 * 64
    for prompt, turn in zip(prompts, turns, strict=True):
        assert_equal_runs(uninterrupted(prompt, NUM_TOKENS), run_of(engine, turn), codec=codec)
