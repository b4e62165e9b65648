"""What a client reads: text in pieces, where it ends, and why."""

from __future__ import annotations

import pytest
import torch

from folio_backend.generation import Prompt
from folio_backend.step import StepInput
from tests.backend.conftest import NewEngine
from tests.backend.engine_harness import EngineHarness, Turn, text_request
from tests.backend.tiny_models import random_ids

EOS_ID = 0


def follow_script(engine: EngineHarness, text: str, *, eos_at_end: bool = True) -> list[int]:
    """Makes the model say a text, token by token, whatever it is asked; its forward still runs.

    Returns:
        The token ids.
    """
    script: list[int] = list(engine.tokenizer.prompt(text_request(text)).token_ids)
    script += [EOS_ID] * eos_at_end
    run = engine.runner.run

    def scripted(step: StepInput) -> torch.Tensor:
        logits = run(step).clone()
        for row, position in enumerate(step.positions[step.logits_rows].tolist()):
            logits[row, script[position % len(script)]] = 100.0
        return logits

    engine.runner.run = scripted  # type: ignore[method-assign]
    return script


def pieces(turn: Turn) -> list[str]:
    return [response.texts[0] for response in turn.answer.responses]


def say(engine: EngineHarness, text: str, **request_fields: object) -> Turn:
    """A turn in which the model says a text: the prompt is one token, so that positions count what is said."""
    follow_script(engine, text)
    turn = engine.submit(text_request(**request_fields), Prompt([5]))  # type: ignore[arg-type]
    engine.run()
    return turn


def test_the_text_ends_with_the_end_token_which_is_not_shown(new_engine: NewEngine) -> None:
    turn = say(new_engine(), "the market is open", max_tokens=100)
    assert turn.answer.texts == ["the market is open"]
    assert turn.answer.responses[-1].finish_reasons == ("stop",)
    assert turn.output_ids[-1] == EOS_ID


def test_max_tokens_ends_it_before(new_engine: NewEngine) -> None:
    turn = say(new_engine(), "the market is open", max_tokens=3)
    assert len(turn.output_ids) == 3
    assert turn.answer.responses[-1].finish_reasons == ("length",)


def test_ignore_eos_goes_on(new_engine: NewEngine) -> None:
    turn = say(new_engine(), "the", max_tokens=6, ignore_eos=True)
    assert turn.output_ids.count(EOS_ID) == 3
    assert turn.answer.texts == ["thethethe"]


def test_min_tokens_keeps_end_and_stop_tokens_away_until_then(new_engine: NewEngine) -> None:
    engine = new_engine()
    turn = say(engine, "the", max_tokens=20, min_tokens=4, stop_token_ids=(9,))
    assert len(turn.output_ids) == 6
    assert turn.output_ids[-1] == EOS_ID
    assert EOS_ID not in turn.output_ids[:4]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("stop", "include", "expected"),
    [
        (("market is",), False, "the "),
        (("market is",), True, "the market is"),
        (("et i",), False, "the mark"),
        (("nothing", "open"), False, "the market is "),
        (("market isn't",), False, "the market is open"),
    ],
)
def test_stop_strings_end_the_text_across_the_borders_of_tokens(
    stop: tuple[str, ...], include: bool, expected: str, stream: bool, new_engine: NewEngine
) -> None:
    turn = say(
        new_engine(),
        "the market is open",
        max_tokens=100,
        stop=stop,
        include_stop_str_in_output=include,
        stream=stream,
    )
    assert turn.answer.texts == [expected]
    assert turn.answer.responses[-1].finish_reasons == ("stop",)
    assert all(expected.startswith("".join(pieces(turn)[:count])) for count in range(len(pieces(turn))))


def test_characters_are_never_split_between_pieces(new_engine: NewEngine) -> None:
    text = "naïve 東京 🎉🎉 ok"
    engine = new_engine()
    assert len(follow_script(engine, text)) > len(text) + 10
    turn = say(engine, text, max_tokens=100, stream=True)
    assert "".join(pieces(turn)) == text
    assert len(pieces(turn)) > 10
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces(turn))


def test_a_character_cut_off_by_max_tokens_shows_as_broken_at_the_end(new_engine: NewEngine) -> None:
    turn = say(new_engine(), "ok🎉", max_tokens=4, stream=True)
    assert "".join(pieces(turn)) == "ok\N{REPLACEMENT CHARACTER}"


def test_streams_tell_counts_that_add_up(new_engine: NewEngine) -> None:
    turn = say(new_engine(), "the market is open", max_tokens=100, stream=True)
    responses = turn.answer.responses
    assert len(responses) > 3
    assert sum(response.num_output_tokens[0] for response in responses) == len(turn.output_ids)
    assert [response.num_cached_tokens for response in responses] == [0] + [None] * (len(responses) - 1)
    assert [response.is_final for response in responses] == [False] * (len(responses) - 1) + [True]
    assert {response.finish_reasons for response in responses[:-1]} == {("None",)}


def test_the_prompt_is_echoed_unless_it_is_excluded(new_engine: NewEngine) -> None:
    engine = new_engine()
    for exclude_input, expected in ((False, "she sells"), (True, "")):
        turn = engine.submit(text_request("she sells", exclude_input=exclude_input, max_tokens=4, ignore_eos=True))
        engine.run()
        assert turn.answer.texts == [expected + engine.tokenizer.decode(turn.output_ids)]


@pytest.mark.parametrize("num_others", [0, 1, 7])
def test_a_seed_draws_the_same_whatever_runs_beside(num_others: int, new_engine: NewEngine) -> None:
    drawn = []
    for count in (0, num_others):
        engine = new_engine()
        for index in range(count):
            engine.submit(text_request(max_tokens=9, temperature=1.0, seed=index), Prompt(random_ids(20 + index)))
        engine.steps(min(count, 2))
        request = text_request(max_tokens=20, temperature=1.0, top_p=0.9, seed=7, ignore_eos=True)
        turn = engine.submit(request, Prompt(random_ids(80)))
        engine.run()
        drawn.append(turn.output_ids)
    assert drawn[0] == drawn[1]


def test_other_seeds_and_none_draw_otherwise(new_engine: NewEngine) -> None:
    drawn = set()
    engine = new_engine()
    for seed in (1, 2, None, None):
        request = text_request(max_tokens=20, temperature=1.0, seed=seed, ignore_eos=True)
        turn = engine.submit(request, Prompt(random_ids(80)))
        engine.run()
        drawn.add(tuple(turn.output_ids))
    assert len(drawn) == 4


def test_logprobs_are_of_the_raw_logits_and_add_up(new_engine: NewEngine) -> None:
    engine = new_engine()
    request = text_request(max_tokens=5, temperature=0.5, seed=3, logprobs=2, ignore_eos=True)
    turn = engine.submit(request, Prompt(random_ids(30)))
    engine.run()
    expected = engine.logits(turn).log_softmax(-1)[range(5), turn.output_ids]
    got = [token.logprob for token in turn.generation.choices[0].sampled]
    assert got == pytest.approx(expected.tolist(), abs=1e-5)
    assert turn.answer.responses[-1].cumulative_logprobs[0] == pytest.approx(float(expected.sum()), abs=1e-4)
