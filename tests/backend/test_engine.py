"""The engine gives what the model's own `generate` gives, whatever runs beside it and however it is cut up."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from transformers import PreTrainedConfig, PreTrainedModel

from tests.backend.conftest import NewEngine
from tests.backend.run_equality import assert_as_model, run_of
from tests.backend.tiny_models import gpt2_config, llama_config, qwen2_config, random_ids, random_model

NUM_TOKENS = 20
CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {"llama": llama_config, "gpt2": gpt2_config, "qwen2": qwen2_config}


@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_is_what_generate_gives(name: str, new_engine: NewEngine, request: pytest.FixtureRequest) -> None:
    own: PreTrainedModel = request.getfixturevalue(name)
    engine = new_engine(random_model(CONFIGS[name]()))
    for count in (1, 5, 63, 64, 65, 128, 300):
        turn = engine.submit_ids(random_ids(count), NUM_TOKENS)
        engine.run()
        assert_as_model(own, random_ids(count), run_of(engine, turn))


def test_sixteen_at_once_get_what_each_gets_alone(new_engine: NewEngine, llama: PreTrainedModel) -> None:
    engine = new_engine()
    prompts = [random_ids(1 + 23 * index) for index in range(16)]
    turns = [engine.submit_ids(prompt, NUM_TOKENS) for prompt in prompts]
    engine.run()
    for prompt, turn in zip(prompts, turns, strict=True):
        assert_as_model(llama, prompt, run_of(engine, turn))


def test_preempted_requests_get_what_they_get_alone(new_engine: NewEngine, llama: PreTrainedModel) -> None:
    engine = new_engine(raw_pages=7, sealed_pages=6, max_step_tokens=128)
    prompts = [random_ids(60 + 40 * index, seed=1) for index in range(4)]
    turns = [engine.submit_ids(prompt, 70) for prompt in prompts]
    engine.run()
    assert engine.engine.parts.scheduler.num_preemptions > 0
    for prompt, turn in zip(prompts, turns, strict=True):
        assert_as_model(llama, prompt, run_of(engine, turn))


@pytest.mark.parametrize("max_step_tokens", [64, 100, 512])
def test_chunks_of_any_size_give_the_same(max_step_tokens: int, new_engine: NewEngine, llama: PreTrainedModel) -> None:
    engine = new_engine(max_step_tokens=max_step_tokens)
    prompt = random_ids(700)
    turn = engine.submit_ids(prompt, NUM_TOKENS)
    engine.run()
    assert_as_model(llama, prompt, run_of(engine, turn))


def test_three_turns_are_what_one_prompt_of_the_same_ids_gives(new_engine: NewEngine, llama: PreTrainedModel) -> None:
    engine = new_engine()
    history: list[int] = []
    for index, count in enumerate((90, 30, 7)):
        turn = engine.submit_ids(random_ids(count, seed=index), 30, session_id="s")
        engine.run()
        prompt = history + random_ids(count, seed=index)
        assert_as_model(llama, prompt, run_of(engine, turn))
        expected_cached = max(0, len(history) - 1)
        assert turn.answer.responses[0].num_cached_tokens == expected_cached
        history = prompt + turn.output_ids
