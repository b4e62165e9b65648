"""What is told of a generation's life, whichever way it ends: phases that follow one another, and how it went."""

from __future__ import annotations

import pytest

from folio_backend.errors import ErrorCode, InvalidArgument
from folio_backend.request_timings import Outcome, RequestTimings
from tests.backend.conftest import NewEngine
from tests.backend.engine_harness import Turn, text_request
from tests.backend.tiny_models import random_ids

BAD_ID = 302
"""No prompt of `random_ids` holds it."""


def timings(turn: Turn) -> RequestTimings:
    assert turn.answer.timings is not None
    return turn.answer.timings


def test_a_finished_request_has_every_phase(new_engine: NewEngine) -> None:
    engine = new_engine(max_step_tokens=64)
    turn = engine.submit_ids(random_ids(200), 5)
    engine.run()
    told, generation = timings(turn), turn.generation
    assert list(told.phases_s()) == ["queue", "prefill", "decode", "send"]
    assert (told.outcome, told.error_code, told.finish_reason) == (Outcome.OK, None, "length")
    assert generation.first_token_s is not None
    assert generation.last_token_s is not None
    assert told.ttft_s == pytest.approx(generation.first_token_s - generation.arrival_s)
    decode_s = generation.last_token_s - generation.first_token_s
    assert told.decode_s == pytest.approx(decode_s)
    assert told.mean_inter_token_s == pytest.approx(decode_s / 4)
    assert (told.num_prompt_tokens, told.num_cached_tokens, told.num_generated_tokens) == (200, 0, 5)


@pytest.mark.parametrize(
    ("num_steps", "phases"),
    [(0, ["queue", "send"]), (2, ["queue", "prefill", "send"]), (8, ["queue", "prefill", "decode", "send"])],
    ids=["waiting", "prefilling", "decoding"],
)
def test_an_early_end_cuts_the_phase_it_falls_into(num_steps: int, phases: list[str], new_engine: NewEngine) -> None:
    engine = new_engine(max_step_tokens=64)
    turn = engine.submit_ids(random_ids(300), 50)
    engine.steps(num_steps)
    turn.generation.arrival_s -= 60
    engine.engine.cancel(lambda generation: generation is turn.generation)
    engine.steps(1)
    told = timings(turn)
    assert list(told.phases_s()) == phases
    assert (told.outcome, told.error_code) == (Outcome.CANCELLED, ErrorCode.CANCELLED)
    assert told.queue_s >= 60
    assert (told.ttft_s is not None) == ("decode" in phases)


def test_what_the_model_cannot_compute_has_failed(new_engine: NewEngine) -> None:
    engine = new_engine()
    engine.runner.poison_id = BAD_ID
    turn = engine.submit_ids([BAD_ID], 5)
    engine.run()
    told = timings(turn)
    assert (told.outcome, told.error_code) == (Outcome.FAILED, ErrorCode.INTERNAL)
    assert told.finish_reason == "model_failure"


def test_a_turn_that_is_refused_when_it_comes_was_never_admitted(new_engine: NewEngine) -> None:
    engine = new_engine()
    first = engine.submit_ids([5], 3, session_id="s")
    second = engine.submit(text_request("a", session_id="s", session_length=99))
    engine.run()
    assert timings(first).outcome is Outcome.OK
    assert isinstance(second.answer.error, InvalidArgument)
    told = timings(second)
    assert (told.outcome, told.finish_reason) == (Outcome.REFUSED, "session_length")
    assert list(told.phases_s()) == ["queue", "send"]


def test_leaving_later_makes_sending_longer_and_nothing_else(new_engine: NewEngine) -> None:
    engine = new_engine()
    turn = engine.submit_ids([5], 3)
    engine.run()
    told = timings(turn)
    later = told.sent_later(1.5)
    assert later.send_s == told.send_s + 1.5
    assert later.end_to_end_s == pytest.approx(told.end_to_end_s + 1.5)
    assert later.ttft_s == told.ttft_s
