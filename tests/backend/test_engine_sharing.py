"""What is there already is not computed again: between requests, choices, sessions and turns, and within a tenant."""

from __future__ import annotations

from transformers import PreTrainedModel

from folio_backend.cache.page import PageKind, PageState
from folio_backend.generation import Prompt
from tests.backend.conftest import NewEngine
from tests.backend.engine_harness import text_request
from tests.backend.run_equality import assert_as_model, run_of
from tests.backend.tiny_models import random_ids

PREFIX = random_ids(320)


def test_two_that_come_together_compute_their_common_prefix_once(new_engine: NewEngine) -> None:
    engine = new_engine(max_step_tokens=128)
    turns = [engine.submit_ids(PREFIX + random_ids(10, seed=seed), 1) for seed in (1, 2)]
    engine.run()
    assert engine.runner.num_computed_tokens == len(PREFIX) + 2 * 10
    assert [turn.answer.responses[0].num_cached_tokens for turn in turns] == [0, len(PREFIX)]


def test_a_later_request_finds_the_prefix_of_an_earlier_one(new_engine: NewEngine) -> None:
    engine = new_engine()
    engine.submit_ids(PREFIX, 1)
    engine.run()
    engine.runner.num_computed_tokens = 0
    turn = engine.submit_ids(PREFIX + random_ids(10), 1)
    engine.run()
    assert engine.runner.num_computed_tokens == 10
    assert turn.answer.responses[0].num_cached_tokens == len(PREFIX)


def test_the_same_prompt_again_computes_its_last_page_for_the_logits(
    new_engine: NewEngine, llama: PreTrainedModel
) -> None:
    engine = new_engine()
    for num_cached in (0, len(PREFIX) - 64):
        turn = engine.submit_ids(PREFIX, 10)
        engine.run()
        assert turn.answer.responses[0].num_cached_tokens == num_cached
        assert_as_model(llama, PREFIX, run_of(engine, turn))


def test_the_one_that_waits_takes_over_when_the_other_is_cancelled(
    new_engine: NewEngine, llama: PreTrainedModel
) -> None:
    engine = new_engine(max_step_tokens=64)
    first = engine.submit_ids(PREFIX, 5)
    second = engine.submit_ids(PREFIX, 5)
    engine.steps(2)
    engine.engine.cancel(lambda generation: generation is first.generation)
    engine.run()
    assert first.answer.error is not None
    assert engine.runner.num_computed_tokens == len(PREFIX) + 4
    assert_as_model(llama, PREFIX, run_of(engine, second))


def test_choices_share_the_pages_of_their_prompt(new_engine: NewEngine) -> None:
    engine = new_engine()
    request = text_request(n=4, temperature=1.0, seed=5, max_tokens=4, ignore_eos=True)
    turn = engine.submit(request, Prompt(PREFIX[:130]))
    engine.steps(1)
    assert engine.num_pages(PageKind.SEALED, PageState.HELD) == 1
    engine.run()
    assert engine.runner.num_computed_tokens == 130 + 3 * (130 - 128) + 4 * 3
    outputs = [choice.output_token_ids for choice in turn.generation.choices]
    assert len({tuple(output) for output in outputs}) == 4
    (response,) = turn.answer.responses
    assert len(response.texts) == 4
    assert response.num_output_tokens == (4, 4, 4, 4)


def test_tenants_share_nothing(new_engine: NewEngine) -> None:
    engine = new_engine()
    for tenant, num_cached in (("a", 0), ("b", 0), ("a", len(PREFIX))):
        turn = engine.submit(text_request(tenant=tenant, max_tokens=1), Prompt([*PREFIX, 5]))
        engine.run()
        assert turn.answer.responses[0].num_cached_tokens == num_cached


def test_a_session_shares_with_requests_outside_of_it(new_engine: NewEngine) -> None:
    engine = new_engine()
    engine.submit_ids(PREFIX, 1, session_id="s")
    engine.run()
    turn = engine.submit_ids([*PREFIX, 5], 1)
    engine.run()
    assert turn.answer.responses[0].num_cached_tokens == len(PREFIX)


def test_pages_that_were_evicted_are_computed_again_and_no_others(new_engine: NewEngine) -> None:
    engine = new_engine(raw_pages=20, sealed_pages=6)
    engine.submit_ids(PREFIX, 1)
    engine.run()
    engine.submit_ids(random_ids(64 * 4, seed=9), 1)
    engine.run()
    assert engine.cache.store.evictions == {"cached": 1}
    turn = engine.submit_ids([*PREFIX, 5], 1)
    engine.run()
    assert turn.answer.responses[0].num_cached_tokens == len(PREFIX) - 64
