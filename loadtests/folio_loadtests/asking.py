"""One request from its intended start to its verdict: every way it can end is told apart here.

Knows the client and the recorder, and tells Locust, so that its own statistics and pages work as always.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from gevent import GreenletExit

from folio_client import Delta, FolioError, GenerateResult, GenerationStream, Unavailable
from folio_loadtests.recorder import Recorder
from folio_loadtests.sample import Cohort, Outcome, Phase, Sample, cohort_of

Check: TypeAlias = Callable[[GenerateResult, Cohort], str]
"""Says what is wrong with an answer; nothing where it is right."""


@dataclass
class Ask:
    """A request under way; what is found out about it is written here.

    Attributes:
        kind: what asks.
        intended_s: when it should have been sent, on the monotonic clock.
        sent_s: when it was.
        outcome: what it came to.
        reason: why it is not OK.
        details: further fields of its `Sample`.
    """

    kind: str
    intended_s: float
    sent_s: float
    outcome: Outcome = Outcome.OK
    reason: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def fail(self, reason: str, outcome: Outcome = Outcome.FAILED) -> None:
        """It went wrong; the first reason counts."""
        if self.outcome is Outcome.OK:
            self.outcome, self.reason = outcome, reason


class Asker:
    """Makes requests and records them.

    Args:
        recorder: where samples go.
        tell_locust: fires Locust's `request` event.
        page_size: tokens of a page on the server.
    """

    def __init__(self, recorder: Recorder, tell_locust: Callable[..., None], page_size: int) -> None:
        self.recorder = recorder
        self._tell_locust = tell_locust
        self._page_size = page_size

    @contextmanager
    def asking(self, kind: str, intended_s: float) -> Iterator[Ask]:
        """Records what happens in the block as one request. The client's errors end in the record."""
        ask = Ask(kind, intended_s, max(time.monotonic(), intended_s))
        self.recorder.num_open += 1
        try:
            yield ask
        except Unavailable as error:
            ask.fail(_reason(error), Outcome.REFUSED)
        except FolioError as error:
            ask.fail(_reason(error))
        except GreenletExit:
            if self.recorder.phase is not Phase.ENDING:  # what the end cuts off is counted by who ends the run
                ask.fail("cut off by the generator")
                self._record(ask)
            raise
        finally:
            self.recorder.num_open -= 1
        self._record(ask)

    def generate(
        self,
        kind: str,
        intended_s: float,
        stream: GenerationStream,
        num_tokens: int,
        *,
        num_history_tokens: int | None = None,
        check: Check | None = None,
    ) -> GenerateResult | None:
        """Asks for a generation; returns it, None where it did not end well.

        Args:
            kind: what asks.
            intended_s: when it should have been sent, on the monotonic clock.
            stream: the generation.
            num_tokens: how many tokens it was asked for.
            num_history_tokens: see `cohort_of`.
            check: says what is wrong with the answer.
        """
        deltas: list[Delta] = []
        with self.asking(kind, intended_s) as ask:
            try:
                with stream:
                    deltas += stream
            finally:
                ask.details = self._details(stream.result, deltas, num_history_tokens)
            _judge(ask, stream.result, num_tokens)
            if check and ask.outcome is Outcome.OK and (wrong := check(stream.result, ask.details["cohort"])):
                ask.fail(wrong, Outcome.WRONG)
        return stream.result if ask.outcome is Outcome.OK else None

    def not_sent(self, kind: str, intended_s: float, reason: str) -> None:
        """A request that was due and never sent."""
        ask = Ask(kind, intended_s, time.monotonic())
        ask.fail(reason)
        self._record(ask)

    def _details(self, result: GenerateResult, deltas: list[Delta], num_history_tokens: int | None) -> dict[str, Any]:
        usage = result.usage
        details: dict[str, Any] = {
            "cohort": cohort_of(num_history_tokens, usage.num_cached_tokens or 0, self._page_size),
            "num_prompt_tokens": usage.num_prompt_tokens or 0,
            "num_cached_tokens": usage.num_cached_tokens or 0,
            "num_generated_tokens": usage.num_generated_tokens or 0,
        }
        texts = [delta for delta in deltas if delta.num_tokens != 0]
        if texts:
            times_s = [delta.received_s for delta in texts]
            num_later = sum(delta.num_tokens or 1 for delta in texts[1:])
            details["first_token_s"] = times_s[0]
            details["inter_token_s"] = (times_s[-1] - times_s[0]) / num_later if num_later else None
            details["pauses_s"] = _pauses_s(texts)
        return details

    def _record(self, ask: Ask) -> None:
        total_s = time.monotonic() - ask.sent_s
        cohort: Cohort | None = ask.details.pop("cohort", None)
        sample = Sample(
            phase=self.recorder.phase_at(ask.intended_s),
            kind=ask.kind,
            outcome=ask.outcome,
            reason=ask.reason,
            cohort=cohort,
            intended_s=self.recorder.wall_s(ask.intended_s),
            late_s=ask.sent_s - ask.intended_s,
            total_s=total_s,
            **ask.details,
        )
        self.recorder.add(sample)
        is_failure = ask.outcome in {Outcome.FAILED, Outcome.WRONG}
        self._tell_locust(
            request_type="refused" if ask.outcome is Outcome.REFUSED else sample.phase.value,
            name=ask.kind,
            response_time=total_s * 1000,
            response_length=sample.num_generated_tokens,
            exception=FolioError(ask.reason) if is_failure else None,
            context={},
        )


def _pauses_s(deltas: Sequence[Delta]) -> tuple[float, ...]:
    """Between two tokens, each. Tokens that could only be shown together share the time that both took."""
    pauses_s: list[float] = []
    for earlier, later in itertools.pairwise(deltas):
        num_tokens = later.num_tokens or 1
        pauses_s += [(later.received_s - earlier.received_s) / num_tokens] * num_tokens
    return tuple(pauses_s)


def _judge(ask: Ask, result: GenerateResult, num_tokens: int) -> None:
    if not result.text:
        ask.fail("empty text")
    if result.finish_reason is None:
        ask.fail("no finish reason")
    elif result.finish_reason == "length" and result.usage.num_generated_tokens not in {num_tokens, None}:
        ask.fail(f"{result.usage.num_generated_tokens} tokens for {num_tokens}")


def _reason(error: FolioError) -> str:
    return f"{type(error).__name__} ({error.field})" if error.field else type(error).__name__
