"""A request on its way through the engine: the generation, and one choice for each of its `n` continuations.

Holds what the scheduler, the engine and the responses need to know of it; decides nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from folio_backend.cache.page_table import PageTable
    from folio_backend.errors import FolioError
    from folio_backend.request import GenerateRequest
    from folio_backend.request_timings import RequestTimings
    from folio_backend.responses import GenerateResponse
    from folio_backend.sampler import SampledToken
    from folio_backend.sessions import Session
    from folio_backend.text_stream import TextStream


class ResponseChannel(Protocol):
    """Where a generation's responses go; no method blocks or raises."""

    def send(self, response: GenerateResponse) -> None:
        """Sends a response; the one that is final is the last."""

    def fail(self, error: FolioError) -> None:
        """Ends with an error."""

    def end(self, timings: RequestTimings) -> None:
        """Told last, behind the final response or the error, how the request went."""


@dataclass(frozen=True)
class Prompt:
    """A request's text as token ids.

    Attributes:
        token_ids: the ids, in a session those of the new text alone, without special start tokens.
        start_token_ids: special tokens that stand before a text that begins a history.
        is_whole_history: the ids are the whole conversation (`messages`), not what follows a session's history.
        text: what is echoed.
    """

    token_ids: Sequence[int]
    start_token_ids: Sequence[int] = ()
    is_whole_history: bool = False
    text: str = field(default="", repr=False)


@dataclass(eq=False)
class Choice:
    """One of a generation's continuations: its tokens and the pages behind them.

    Attributes:
        generation: whose it is.
        index: which of the `n`.
        token_ids: the history, the prompt and what was sampled.
        num_prompt_tokens: how many of them came before the first sampled one.
        table: the pages.
        seed: what its random draws depend on, besides index and position.
        text_stream: turns sampled tokens into text.
        sampled: every sampled token with its log-probabilities.
        text: what its text stream has let out.
        finish_reason: why it ended; None while it runs.
        num_cached_tokens: prompt tokens whose keys and values were there already; None before it first ran.
    """

    generation: Generation
    index: int
    token_ids: list[int]
    num_prompt_tokens: int
    table: PageTable
    seed: int
    text_stream: TextStream
    sampled: list[SampledToken] = field(default_factory=list)
    text: str = ""
    finish_reason: str | None = None
    num_cached_tokens: int | None = None

    @property
    def output_token_ids(self) -> list[int]:
        """The sampled tokens' ids."""
        return self.token_ids[self.num_prompt_tokens :]

    @property
    def num_left(self) -> int:
        """Tokens whose keys and values are not computed yet."""
        return len(self.token_ids) - self.table.num_computed_tokens


@dataclass(eq=False)
class Generation:
    """A request being served.

    Attributes:
        request: what was asked.
        prompt: the request's own tokens.
        channel: where responses go.
        arrival: place in the order of arrival.
        session: the session it continues; None outside sessions.
        choices: empty until its turn in the session comes.
        cancel_reason: set when it is to end early: the sentence its client gets.
    """

    request: GenerateRequest
    prompt: Prompt
    channel: ResponseChannel
    arrival: int
    session: Session | None = None
    choices: list[Choice] = field(default_factory=list)
    cancel_reason: str | None = None
    arrival_s: float = field(default_factory=time.monotonic)
    first_step_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    history_s: float | None = None

    @property
    def deadline_s(self) -> float:
        """When its answer is of no use any more, on the monotonic clock."""
        deadline_ms = self.request.deadline_ms
        return float("inf") if deadline_ms is None else self.arrival_s + deadline_ms / 1000

    @property
    def order(self) -> tuple[int, float, int]:
        """Its place in the queue: lower priority numbers first, then the nearer deadline, then who came first."""
        return self.request.priority, self.deadline_s, self.arrival

    @property
    def is_finished(self) -> bool:
        """Whether every choice has ended."""
        return bool(self.choices) and all(choice.finish_reason for choice in self.choices)
