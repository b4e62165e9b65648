"""A generation as its client sees it: from responses to deltas, and to what they add up to.

Knows the outputs of a generate model. Does not know how they arrive; both clients share this.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from folio_client.errors import ConnectionFailed, DeadlineExceeded, IncompleteResponse
from folio_client.types import Choice, Delta, GenerateResult, Usage
from folio_client.wire import Outputs, Scalar

_RUNNING = "None"
"""What a choice's finish reason says while it runs, as in vllm_backend."""


@dataclass
class _ChoiceSoFar:
    texts: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    cumulative_logprob: float | None = None
    logprobs: list[Mapping[str, Any]] = field(default_factory=list)


class Generation:
    """One generation, response by response.

    Args:
        request_id: what the client calls it.
        clock: gives seconds.

    Attributes:
        is_lost: whether the server may have carried it out without the client's knowing.
    """

    def __init__(self, request_id: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self.request_id = request_id
        self.is_lost = False
        self._clock = clock
        self._start_s = clock()
        self._choices: list[_ChoiceSoFar] = []
        self._first_token_s: float | None = None
        self._total_s = 0.0
        self._num_prompt_tokens: int | None = None
        self._num_cached_tokens: int | None = None
        self._num_generated_tokens: int | None = None
        self._names_finish_reasons = False

    def start(self) -> None:
        """The request is about to be sent for the first time: its times count from here."""
        self._start_s = self._clock()

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Takes note where the block, which sends the request, ends without a word from the server."""
        try:
            yield
        except (ConnectionFailed, DeadlineExceeded):
            self.is_lost = True
            raise

    @property
    def has_begun(self) -> bool:
        """Whether anything of it has arrived."""
        return bool(self._choices)

    def deltas(self, outputs: Outputs) -> list[Delta]:
        """What a response adds, a delta for each choice."""
        received_s = self._total_s = self._clock() - self._start_s
        if not self._choices:
            self._first_token_s = received_s
            self._choices = [_ChoiceSoFar() for _ in outputs["text_output"]]
        self._count(outputs)
        return [self._delta(index, outputs, received_s) for index in range(len(self._choices))]

    def end(self) -> None:
        """Nothing follows.

        Raises:
            IncompleteResponse: nothing came, or a choice has not ended.
        """
        self._total_s = self._clock() - self._start_s
        is_ended = all(choice.finish_reason is not None for choice in self._choices)
        if not self._choices or (self._names_finish_reasons and not is_ended):
            num_characters = sum(len(text) for choice in self._choices for text in choice.texts)
            raise IncompleteResponse(f"The answer broke off after {num_characters} characters.")

    def result(self) -> GenerateResult:
        """What has arrived so far; all of it after `end`."""
        return GenerateResult(
            choices=tuple(
                Choice(
                    text="".join(choice.texts),
                    finish_reason=choice.finish_reason,
                    cumulative_logprob=choice.cumulative_logprob,
                    logprobs=tuple(choice.logprobs),
                )
                for choice in self._choices
            ),
            usage=Usage(
                num_prompt_tokens=self._num_prompt_tokens,
                num_cached_tokens=self._num_cached_tokens,
                num_generated_tokens=self._num_generated_tokens,
                first_token_s=self._first_token_s,
                total_s=self._total_s,
            ),
            request_id=self.request_id,
        )

    def _count(self, outputs: Outputs) -> None:
        if self._num_prompt_tokens is None:
            self._num_prompt_tokens = _integer(outputs, "num_input_tokens")
        if self._num_cached_tokens is None:
            self._num_cached_tokens = _integer(outputs, "num_cached_tokens")
        if "num_output_tokens" in outputs:
            added = sum(int(count) for count in outputs["num_output_tokens"])
            self._num_generated_tokens = (self._num_generated_tokens or 0) + added

    def _delta(self, index: int, outputs: Outputs, received_s: float) -> Delta:
        choice = self._choices[index]
        text = str(outputs["text_output"][index])
        choice.texts.append(text)
        if "finish_reason" in outputs:
            self._names_finish_reasons = True
            reason = str(outputs["finish_reason"][index])
            choice.finish_reason = None if reason == _RUNNING else reason
        if "cumulative_logprob" in outputs:
            choice.cumulative_logprob = float(outputs["cumulative_logprob"][index])
        if "logprobs" in outputs:
            choice.logprobs += json.loads(str(outputs["logprobs"][index])) or ()
        num_tokens = int(outputs["num_output_tokens"][index]) if "num_output_tokens" in outputs else None
        return Delta(text, index, num_tokens, choice.finish_reason, received_s)


def _integer(outputs: Outputs, name: str) -> int | None:
    values: tuple[Scalar, ...] = outputs.get(name, ())
    return int(values[0]) if values else None
