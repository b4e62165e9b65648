"""One request's trouble stays its own: refusals, cancels, deadlines, exceptions, broken numbers, shutting down."""

from __future__ import annotations

import threading

import pytest
from transformers import PreTrainedModel

from folio_backend.cache.page import PageKind, PageState
from folio_backend.errors import Cancelled, Internal, InvalidArgument, Unavailable
from folio_backend.generation import Prompt
from tests.backend.conftest import NewEngine
from tests.backend.engine_harness import EngineHarness, text_request
from tests.backend.run_equality import assert_as_model, run_of
from tests.backend.tiny_models import random_ids

BAD_ID = 302
"""No prompt of `random_ids` holds it."""


def num_held(engine: EngineHarness) -> int:
    return sum(engine.num_pages(kind, PageState.HELD) for kind in PageKind)


@pytest.mark.parametrize("num_steps", [0, 2, 8], ids=["waiting", "prefilling", "decoding"])
def test_a_cancel_frees_every_page_by_the_end_of_the_next_step(num_steps: int, new_engine: NewEngine) -> None:
    engine = new_engine(max_step_tokens=64)
    turn = engine.submit_ids(random_ids(300), 50)
    engine.steps(num_steps)
    assert bool(num_held(engine)) == bool(num_steps)
    assert engine.engine.cancel(lambda generation: generation is turn.generation) == 1
    engine.steps(1)
    assert num_held(engine) == 0
    assert isinstance(turn.answer.error, Cancelled)
    assert engine.engine.cancel(lambda generation: generation is turn.generation) == 0


def test_a_cancelled_request_leaves_the_others_as_they_were(new_engine: NewEngine, llama: PreTrainedModel) -> None:
    engine = new_engine()
    turns = [engine.submit_ids(random_ids(100, seed=seed), 20) for seed in range(3)]
    engine.steps(5)
    engine.engine.cancel(lambda generation: generation is turns[1].generation)
    engine.run()
    for seed in (0, 2):
        assert_as_model(llama, random_ids(100, seed=seed), run_of(engine, turns[seed]))


def test_a_deadline_that_has_passed_ends_a_request_and_says_so(new_engine: NewEngine) -> None:
    engine = new_engine()
    late = engine.submit(text_request(max_tokens=50, ignore_eos=True, deadline_ms=60_000), Prompt([5]))
    timely = engine.submit(text_request(max_tokens=5, ignore_eos=True, deadline_ms=60_000), Prompt([6]))
    engine.steps(2)
    late.generation.arrival_s -= 61
    engine.steps(1)
    assert isinstance(late.answer.error, Cancelled)
    assert "60000 ms" in late.answer.error.sentence
    engine.run()
    assert timely.answer.error is None


def test_a_full_queue_refuses_at_once_and_says_when_to_ask_again(new_engine: NewEngine) -> None:
    engine = new_engine(max_queued=3)
    turns = [engine.submit_ids([5], 2) for _ in range(3)]
    with pytest.raises(Unavailable) as refused:
        engine.submit_ids([5], 2)
    assert refused.value.retry_after_ms is not None
    assert refused.value.retry_after_ms >= 100
    assert refused.value.reason == "queue_full"
    engine.run()
    assert all(turn.answer.error is None for turn in turns)
    engine.submit_ids([5], 2)
    engine.run()


def test_what_could_never_fit_the_pool_is_refused(new_engine: NewEngine) -> None:
    engine = new_engine(raw_pages=6, sealed_pages=4)
    with pytest.raises(InvalidArgument) as refused:
        engine.submit_ids(random_ids(300), 100)
    assert refused.value.field == "max_tokens"
    engine.submit_ids(random_ids(300), 10)
    engine.run()


@pytest.mark.parametrize("num_ids", [0, 4_096])
def test_prompts_without_tokens_and_too_long_ones_are_refused(num_ids: int, new_engine: NewEngine) -> None:
    with pytest.raises(InvalidArgument) as refused:
        new_engine().submit_ids(random_ids(num_ids), 1)
    assert refused.value.allowed == "1 to 4095 tokens"


def test_a_request_on_which_the_model_fails_fails_alone(new_engine: NewEngine, llama: PreTrainedModel) -> None:
    engine = new_engine()
    engine.runner.poison_id = BAD_ID
    before = engine.submit_ids(random_ids(100, seed=0), 20)
    engine.steps(3)
    bad = engine.submit_ids([*random_ids(150), BAD_ID], 5)
    after = engine.submit_ids(random_ids(90, seed=1), 20)
    engine.run()
    assert isinstance(bad.answer.error, Internal)
    assert "RuntimeError" in bad.answer.error.sentence
    assert "poisoned" not in bad.answer.error.text()
    assert_as_model(llama, random_ids(100, seed=0), run_of(engine, before))
    assert_as_model(llama, random_ids(90, seed=1), run_of(engine, after))


def test_a_session_survives_a_turn_on_which_the_model_fails(new_engine: NewEngine, llama: PreTrainedModel) -> None:
    engine = new_engine()
    engine.runner.poison_id = BAD_ID
    first = engine.submit_ids(random_ids(100), 5, session_id="s")
    bad = engine.submit_ids([BAD_ID], 5, session_id="s")
    last = engine.submit_ids([7], 10, session_id="s")
    engine.run()
    assert isinstance(bad.answer.error, Internal)
    assert_as_model(llama, [*random_ids(100), *first.output_ids, 7], run_of(engine, last))


def test_numbers_that_break_in_one_row_break_one_request(new_engine: NewEngine, llama: PreTrainedModel) -> None:
    engine = new_engine()
    engine.runner.nan_id = BAD_ID
    bad = engine.submit_ids([*random_ids(40), BAD_ID], 5)
    good = engine.submit_ids(random_ids(100), 20)
    engine.run()
    assert isinstance(bad.answer.error, Internal)
    assert_as_model(llama, random_ids(100), run_of(engine, good))


def test_an_answer_that_cannot_be_sent_ends_its_request_alone(new_engine: NewEngine, llama: PreTrainedModel) -> None:
    engine = new_engine()
    bad = engine.submit_ids(random_ids(40), 20)
    good = engine.submit_ids(random_ids(100), 20)

    def refuse(_response: object) -> None:
        raise OSError("content that must not be shown")

    engine.steps(3)
    bad.answer.send = refuse  # type: ignore[assignment, method-assign]
    engine.run()
    assert isinstance(bad.answer.error, Internal)
    assert bad.answer.error.sentence == "The answer failed (OSError)."
    assert_as_model(llama, random_ids(100), run_of(engine, good))


def test_a_fault_outside_of_the_model_ends_what_is_live_and_is_told(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = new_engine()
    lost = [engine.submit_ids(random_ids(40), 20, session_id=session_id) for session_id in (None, "s")]
    with monkeypatch.context() as patch:
        patch.setattr(engine.engine.parts.scheduler, "schedule", lambda: 1 / 0)
        engine.engine.start()
        engine.engine.drain()
        engine.engine.stop()
    assert [turn.answer.error.sentence for turn in lost if turn.answer.error] == [
        "The engine failed (ZeroDivisionError)."
    ] * 2
    assert engine.engine.integrity_error == "a step failed outside of the model (ZeroDivisionError)"
    assert num_held(engine) == 0


def test_draining_refuses_what_is_new_and_waits_for_what_is_live(new_engine: NewEngine) -> None:
    engine = new_engine()
    turn = engine.submit_ids(random_ids(100), 30)
    engine.engine.start()
    engine.engine.drain()
    assert turn.answer.error is None
    assert len(turn.output_ids) == 30
    with pytest.raises(Unavailable, match="shutting down"):
        engine.submit_ids([5], 2)
    engine.engine.stop()
    assert engine.engine.integrity_error is None


def test_stopping_ends_everything_that_is_live_once(new_engine: NewEngine) -> None:
    engine = new_engine()
    running = engine.submit_ids(random_ids(5), 30, session_id="s")
    wrong = engine.submit(text_request(session_id="s", session_length=1), Prompt([7]))
    waiting = engine.submit_ids([8], 3, session_id="s")
    engine.steps(2)
    engine.engine.stop()
    for turn in (running, wrong, waiting):
        assert turn.answer.error is not None


def test_the_thread_serves_what_comes_from_other_threads(new_engine: NewEngine, llama: PreTrainedModel) -> None:
    engine = new_engine(max_running=4)
    engine.engine.start()
    turns = {}

    def submit(seed: int) -> None:
        turns[seed] = engine.submit_ids(random_ids(50, seed=seed), 10)

    threads = [threading.Thread(target=submit, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.engine.drain()
    engine.engine.stop()
    for seed, turn in turns.items():
        assert_as_model(llama, random_ids(50, seed=seed), run_of(engine, turn))
