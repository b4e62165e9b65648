"""A session is token ids: it grows turn by turn, and nothing but what was emitted ever enters it."""

from __future__ import annotations

import pytest
from transformers import PreTrainedModel

from folio_backend.errors import Cancelled, InvalidArgument
from folio_backend.generation import Prompt
from tests.backend.conftest import NewEngine
from tests.backend.engine_harness import EngineHarness, text_request
from tests.backend.run_equality import assert_as_model, run_of
from tests.backend.tiny_models import random_ids


def history(engine: EngineHarness, session_id: str = "s") -> list[int] | None:
    session = engine.sessions.find("default", session_id)
    return None if session is None else session.token_ids


def test_a_turn_adds_its_prompt_and_every_token_sampled(new_engine: NewEngine) -> None:
    engine = new_engine()
    first = engine.submit_ids(random_ids(70), 9, session_id="s")
    engine.run()
    assert history(engine) == random_ids(70) + first.output_ids
    assert len(first.output_ids) == 9


def test_a_stop_token_is_kept_though_it_is_not_shown(new_engine: NewEngine) -> None:
    engine = new_engine()
    free = engine.submit_ids(random_ids(20), 6)
    engine.run()
    stop_id = free.output_ids[3]
    assert stop_id not in free.output_ids[:3]
    request = text_request(max_tokens=6, ignore_eos=True, stop_token_ids=(stop_id,), session_id="s")
    turn = engine.submit(request, Prompt(random_ids(20)))
    engine.run()
    assert history(engine) == random_ids(20) + free.output_ids[:4]
    assert turn.answer.texts == [engine.tokenizer.decode(free.output_ids[:3])]
    assert turn.answer.responses[-1].finish_reasons == ("stop",)


def test_turns_run_in_order_of_arrival_whatever_their_priority(new_engine: NewEngine) -> None:
    engine = new_engine()
    turns = [
        engine.submit(
            text_request(max_tokens=3, ignore_eos=True, session_id="s", priority=priority),
            Prompt(random_ids(5, seed=priority)),
        )
        for priority in (3, 2, 1)
    ]
    engine.run()
    expected: list[int] = []
    for priority, turn in zip((3, 2, 1), turns, strict=True):
        expected += random_ids(5, seed=priority) + turn.output_ids
        assert len(turn.output_ids) == 3
    assert history(engine) == expected


def test_start_tokens_stand_before_the_first_turn_alone(new_engine: NewEngine) -> None:
    engine = new_engine()
    for _ in range(2):
        request = text_request(max_tokens=1, ignore_eos=True, session_id="s")
        engine.submit(request, Prompt([10, 11], start_token_ids=[1]))
        engine.run()
    held = history(engine)
    assert held is not None
    assert held[:3] == [1, 10, 11]
    assert held[4:6] == [10, 11]
    assert len(held) == 7


@pytest.mark.parametrize("num_steps", [0, 1, 4])
def test_a_cancelled_turn_keeps_what_was_emitted(num_steps: int, new_engine: NewEngine, llama: PreTrainedModel) -> None:
    engine = new_engine()
    first = engine.submit_ids(random_ids(70), 5, session_id="s")
    engine.run()
    before = random_ids(70) + first.output_ids
    cancelled = engine.submit_ids(random_ids(30), 50, session_id="s")
    engine.steps(num_steps)
    engine.engine.cancel(lambda generation: generation is cancelled.generation)
    engine.run()
    assert isinstance(cancelled.answer.error, Cancelled)
    emitted = cancelled.output_ids
    assert len(emitted) == num_steps
    expected = before + random_ids(30) + emitted if emitted else before
    assert history(engine) == expected
    last = engine.submit_ids(random_ids(10), 10, session_id="s")
    engine.run()
    assert_as_model(llama, expected + random_ids(10), run_of(engine, last))


def test_a_cancelled_first_turn_without_a_token_leaves_no_session(new_engine: NewEngine) -> None:
    engine = new_engine(max_step_tokens=64)
    turn = engine.submit_ids(random_ids(300), 5, session_id="s")
    engine.steps(2)
    engine.engine.cancel(lambda generation: generation is turn.generation)
    engine.run()
    assert history(engine) is None


@pytest.mark.parametrize(
    ("request_fields", "num_ids", "field"),
    [
        ({"session_length": 3}, 5, "session_length"),
        ({}, 4_095, "text_input"),
    ],
)
def test_a_refused_turn_changes_nothing(
    request_fields: dict[str, int], num_ids: int, field: str, new_engine: NewEngine
) -> None:
    engine = new_engine()
    engine.submit_ids(random_ids(70), 5, session_id="s")
    engine.run()
    session = engine.sessions.find("default", "s")
    assert session is not None
    before = list(session.token_ids), list(session.table.keys), session.table.open_page, session.num_turns
    request = text_request(session_id="s", **request_fields)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument) as refused:
        engine.submit(request, Prompt(random_ids(num_ids)))
    assert refused.value.field == field
    assert (list(session.token_ids), list(session.table.keys), session.table.open_page, session.num_turns) == before
    assert session.is_idle


def test_a_session_length_that_is_right_is_accepted_and_a_repeated_turn_is_not(new_engine: NewEngine) -> None:
    engine = new_engine()
    request = text_request("the cat", session_id="s", session_length=0, max_tokens=3, ignore_eos=True)
    engine.submit(request)
    engine.run()
    with pytest.raises(InvalidArgument, match=r"session_length is 0 but the session holds \d+ tokens"):
        engine.submit(request)


def test_a_turn_that_turns_out_wrong_when_its_time_comes_is_refused_and_the_next_one_runs(
    new_engine: NewEngine,
) -> None:
    engine = new_engine()
    first = engine.submit_ids(random_ids(5), 3, session_id="s")
    wrong = engine.submit(text_request(session_id="s", session_length=5), Prompt([7]))
    right = engine.submit(text_request(session_id="s", session_length=8, max_tokens=1), Prompt([9]))
    engine.run()
    assert isinstance(wrong.answer.error, InvalidArgument)
    assert wrong.answer.error.field == "session_length"
    assert history(engine) == random_ids(5) + first.output_ids + [9] + right.output_ids


def test_a_waiting_turn_that_is_cancelled_leaves_the_others_in_line(new_engine: NewEngine) -> None:
    engine = new_engine()
    turns = [engine.submit_ids([10 + index], 3, session_id="s") for index in range(3)]
    engine.steps(1)
    engine.engine.cancel(lambda generation: generation is turns[1].generation)
    engine.run()
    assert isinstance(turns[1].answer.error, Cancelled)
    assert history(engine) == [10, *turns[0].output_ids, 12, *turns[2].output_ids]


def test_cancelling_a_whole_line_ends_each_turn_once_also_one_that_would_be_refused(new_engine: NewEngine) -> None:
    engine = new_engine()
    first = engine.submit_ids(random_ids(5), 30, session_id="s")
    wrong = engine.submit(text_request(session_id="s", session_length=1), Prompt([7]))
    last = engine.submit_ids([8], 3, session_id="s")
    engine.steps(2)
    assert engine.engine.cancel(lambda generation: generation.request.session_id == "s") == 3
    engine.run()
    assert isinstance(first.answer.error, Cancelled)
    assert wrong.answer.has_ended
    assert isinstance(last.answer.error, Cancelled)
    assert history(engine) == random_ids(5) + first.output_ids


@pytest.mark.parametrize("num_words", [6, 40], ids=["within the open page", "within a stored page"])
def test_messages_reuse_the_longest_common_beginning_and_replace_the_rest(
    num_words: int, new_engine: NewEngine, llama: PreTrainedModel
) -> None:
    engine = new_engine()
    messages = [("system", "she sells " * 20), ("user", "the market " + "and shells " * num_words)]
    first = text_request(messages=messages, session_id="s", max_tokens=20, ignore_eos=True)
    engine.submit(first)
    engine.run()
    held = history(engine)
    assert held is not None
    changed = [messages[0], ("user", "the market is closed")]
    second = engine.submit(text_request(messages=changed, session_id="s", max_tokens=10, ignore_eos=True))
    engine.run()
    prompt = second.generation.choices[0].token_ids[:-10]
    assert prompt == engine.tokenizer.prompt(text_request(messages=changed)).token_ids
    num_common = next(index for index, (one, other) in enumerate(zip(held, prompt, strict=False)) if one != other)
    assert 64 < num_common < min(128, len(prompt))
    assert second.answer.responses[0].num_cached_tokens == (num_common if len(held) < 128 else 64)
    assert_as_model(llama, prompt, run_of(engine, second))
    assert history(engine) == prompt + second.output_ids


def test_the_session_unused_for_longest_is_forgotten_when_there_are_too_many(new_engine: NewEngine) -> None:
    engine = new_engine(max_sessions=2)
    for session_id in ("a", "b", "a", "c"):
        engine.submit_ids([5], 2, session_id=session_id)
        engine.run()
    assert {session.session_id for session in engine.sessions} == {"a", "c"}
