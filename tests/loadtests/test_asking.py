"""Every way in which a request can end, told apart."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from folio_client import DeadlineExceeded, GenerationStream, IncompleteResponse, NotFound, Unavailable
from folio_client.generation import Generation
from folio_loadtests.asking import Asker
from folio_loadtests.recorder import Recorder
from folio_loadtests.sample import Cohort, Outcome, Phase, Sample

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from folio_client import Delta, FolioError, GenerateResult

NUM_TOKENS = 3
FIRST: dict[str, Any] = {"num_input_tokens": (9,), "num_cached_tokens": (4,)}


def response(text: str, num_tokens: int, reason: str = "None") -> dict[str, Any]:
    return {"text_output": (text,), "num_output_tokens": (num_tokens,), "finish_reason": (reason,)}


def stream_of(responses: Sequence[Mapping[str, Any]], error: FolioError | None = None) -> GenerationStream:
    """A generation whose responses are these, and then perhaps an error."""
    generation = Generation("name")

    def deltas() -> Generator[Delta, None, None]:
        generation.start()
        for outputs in responses:
            yield from generation.deltas(outputs)
        if error is not None:
            raise error
        generation.end()

    return GenerationStream(deltas(), generation)


class Asked:
    """An asker, and what it has told."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.recorder = Recorder()
        self.asker = Asker(self.recorder, lambda **event: self.told.append(event), page_size=64)

    def generate(
        self, responses: Sequence[Mapping[str, Any]], error: FolioError | None = None, **options: Any
    ) -> tuple[GenerateResult | None, Sample]:
        """Makes one request; returns what the asker returns, and the sample."""
        intended_s = options.pop("intended_s", time.monotonic())
        result = self.asker.generate("chat", intended_s, stream_of(responses, error), NUM_TOKENS, **options)
        (fields,) = self.recorder.take_report()["samples"]
        return result, Sample.read(fields)


WHOLE = [{**response("a", 1), **FIRST}, response("bc", 2, "length")]


def test_a_whole_answer_is_ok_and_counted() -> None:
    asked = Asked()
    result, sample = asked.generate(WHOLE)
    assert result is not None
    assert (sample.outcome, sample.cohort) == (Outcome.OK, Cohort.SHARED)
    assert (sample.num_prompt_tokens, sample.num_cached_tokens, sample.num_generated_tokens) == (9, 4, 3)
    assert len(sample.pauses_s) == 2, "one for each token behind the first delta"
    assert sample.total_s >= (sample.first_token_s or 0) > 0
    assert asked.told[0]["exception"] is None


@pytest.mark.parametrize(
    ("responses", "error", "outcome", "reason"),
    [
        ([], Unavailable("full", retry_after_ms=5), Outcome.REFUSED, "Unavailable"),
        ([], NotFound("gone", field="session_id"), Outcome.FAILED, "NotFound (session_id)"),
        ([WHOLE[0]], None, Outcome.FAILED, "IncompleteResponse"),
        ([WHOLE[0]], DeadlineExceeded("late"), Outcome.FAILED, "DeadlineExceeded"),
        ([WHOLE[0]], IncompleteResponse("lost"), Outcome.FAILED, "IncompleteResponse"),
        ([{**response("", 3, "length"), **FIRST}], None, Outcome.FAILED, "empty text"),
        ([{**response("a", 2, "length"), **FIRST}], None, Outcome.FAILED, "2 tokens for 3"),
        ([{"text_output": ("a",)}], None, Outcome.FAILED, "no finish reason"),
    ],
)
def test_what_is_no_whole_answer_is_no_success(
    responses: Sequence[Mapping[str, Any]], error: FolioError | None, outcome: Outcome, reason: str
) -> None:
    asked = Asked()
    result, sample = asked.generate(responses, error)
    assert result is None
    assert (sample.outcome, sample.reason) == (outcome, reason)
    assert (asked.told[0]["exception"] is None) == (outcome is Outcome.REFUSED), "a refusal is no failure to Locust"


def test_a_wrong_answer_is_neither_a_success_nor_a_failure() -> None:
    result, sample = Asked().generate(WHOLE, check=lambda _, cohort: f"wrong in {cohort.value}")
    assert result is None
    assert (sample.outcome, sample.reason) == (Outcome.WRONG, "wrong in shared prefix")


def test_the_latency_counts_from_the_intended_start() -> None:
    _, sample = Asked().generate(WHOLE, intended_s=time.monotonic() - 3)
    assert sample.late_s >= 3
    assert sample.latency_s == sample.late_s + sample.total_s
    assert sample.total_s < 3


def test_a_request_belongs_to_the_phase_in_which_it_was_meant_to_start() -> None:
    asked = Asked()
    before_s = time.monotonic()
    asked.recorder.enter(Phase.MEASUREMENT)
    assert asked.generate(WHOLE, intended_s=before_s)[1].phase is Phase.WARM_UP
    assert asked.generate(WHOLE)[1].phase is Phase.MEASUREMENT
    asked.recorder.enter(Phase.ENDING)
    assert asked.generate(WHOLE)[1].phase is Phase.ENDING
    assert asked.recorder.num_open == 0
