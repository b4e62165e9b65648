"""What a client returns: frozen values, the same for every protocol, synchronous or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

Tensor = npt.NDArray[np.generic]


class Message(TypedDict):
    """One entry of a chat: who says what."""

    role: str
    content: str


@dataclass(frozen=True)
class Usage:
    """What a generation took; None where the model does not say.

    Attributes:
        num_prompt_tokens: tokens of the prompt, a session's history included.
        num_cached_tokens: prompt tokens whose keys and values were not computed again.
        num_generated_tokens: tokens generated, over all choices.
        first_token_s: seconds from sending the request to its first text.
        total_s: seconds from sending the request to its end.
    """

    num_prompt_tokens: int | None = None
    num_cached_tokens: int | None = None
    num_generated_tokens: int | None = None
    first_token_s: float | None = None
    total_s: float = 0.0

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens a second behind the first response; None where that is not known."""
        if not self.num_generated_tokens or self.first_token_s is None or self.total_s <= self.first_token_s:
            return None
        return (self.num_generated_tokens - 1) / (self.total_s - self.first_token_s)


@dataclass(frozen=True)
class Choice:
    """One of the texts that a prompt gave.

    Attributes:
        text: without the prompt.
        finish_reason: "stop" or "length"; None where the model does not say.
        cumulative_logprob: None unless asked for.
        logprobs: an entry per token: token id (as text) to `logprob`, `rank` and `decoded_token`; empty unless asked.
    """

    text: str = field(repr=False)
    finish_reason: str | None
    cumulative_logprob: float | None = None
    logprobs: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class GenerateResult:
    """A whole generation.

    Attributes:
        choices: one, or as many as the parameter `n` says.
        usage: what it took.
        request_id: what the client called it.
    """

    choices: tuple[Choice, ...]
    usage: Usage
    request_id: str

    @property
    def text(self) -> str:
        """The first choice's text."""
        return self.choices[0].text

    @property
    def finish_reason(self) -> str | None:
        """Why the first choice ended."""
        return self.choices[0].finish_reason


@dataclass(frozen=True)
class Delta:
    """A piece of a generation.

    Attributes:
        text: what is new of the choice.
        choice: which choice, from 0.
        num_tokens: tokens behind the text; None where the model does not say.
        finish_reason: in a choice's last delta.
        received_s: seconds from sending the request.
    """

    text: str = field(repr=False)
    choice: int
    num_tokens: int | None
    finish_reason: str | None
    received_s: float


@dataclass(frozen=True)
class SessionInfo:
    """A session as the server describes it.

    Attributes:
        session_id: its name.
        num_tokens: its length.
        num_resident_tokens: tokens whose keys and values need not be computed again; None for attention models.
        num_turns: turns so far; None for attention models.
        is_idle: whether no request uses it; None for attention models.
    """

    session_id: str
    num_tokens: int
    num_resident_tokens: int | None = None
    num_turns: int | None = None
    is_idle: bool | None = None


@dataclass(frozen=True)
class Health:
    """What the model says of itself.

    Attributes:
        is_healthy: it still steps, and its pages add up.
        heartbeat_age_s: since its last sign of life; None for attention models.
        integrity_error: what does not add up.
    """

    is_healthy: bool
    heartbeat_age_s: float | None
    integrity_error: str | None


@dataclass(frozen=True)
class PageCounts:
    """How many pages of one kind are in each state; see DESIGN for the words."""

    free: int
    cached: int
    held: int
    loading: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.free + self.cached + self.held + self.loading

    @property
    def in_use(self) -> int:
        """Those that hold something."""
        return self.total - self.free


@dataclass(frozen=True)
class Stats:
    """A model's counts; None where a model of its task has no such thing.

    Attributes:
        pages: page kind, "raw" or "sealed", to its counts.
        num_evictions: reason to pages evicted since the start.
        bytes_per_token: of sealed pages; `_fp16` what fp16 would take.
        document: everything that the server said, as it said it.
    """

    num_running_requests: int | None
    num_waiting_requests: int | None
    num_sessions: int
    pages: Mapping[str, PageCounts]
    num_evictions: Mapping[str, int]
    num_preemptions: int | None
    num_recompilations: int
    memory_usage_bytes: int
    memory_limit_bytes: int
    page_size: int
    bytes_per_token: float
    bytes_per_token_fp16: float
    codec: str
    document: Mapping[str, Any] = field(repr=False)

    @property
    def num_held_pages(self) -> int:
        """Pages that requests and sessions hold, of all kinds."""
        return sum(counts.held for counts in self.pages.values())


@dataclass(frozen=True)
class AttentionResult:
    """The answer to a step.

    Attributes:
        output: `[tokens, heads, head_dim]` in the model's dtype: causal attention over the whole history.
        length: tokens that the session holds now.
    """

    output: Tensor = field(repr=False)
    length: int


@dataclass(frozen=True)
class WarmUpResult:
    """How a warm-up went.

    Attributes:
        latencies_s: of its requests, in order of completion; the first is the cold one.
        is_settled: whether the latencies stopped changing before the requests ran out.
    """

    latencies_s: tuple[float, ...] = field(repr=False)
    is_settled: bool

    @property
    def num_requests(self) -> int:
        """How many requests it took."""
        return len(self.latencies_s)
