"""From a request to choices in the queue: what is refused, and what a session adds to a prompt.

Knows lengths, the bounds of queue and pool, and sessions' turns. Does not know how choices are computed. Runs under
the engine's lock.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from folio_backend.cache.kv_cache import KVCache
from folio_backend.cache.page_table import PageTable
from folio_backend.cache.prefix_key import PrefixKeys
from folio_backend.errors import InvalidArgument, Unavailable
from folio_backend.generation import Choice, Generation, Prompt, ResponseChannel
from folio_backend.request import GenerateRequest
from folio_backend.sessions import Session, SessionRegistry
from folio_backend.text_stream import TextStream
from folio_backend.text_tokenizer import TextTokenizer


@dataclass(frozen=True)
class AdmissionLimits:
    """Bounds that are fixed when the model loads."""

    max_model_tokens: int
    max_queued: int
    max_running: int


NUM_CONTEXT_TOKENS = 4
"""Prompt tokens before the first sampled one: some tokenizers drop the space of a text's first word."""


class Admission:
    """Makes generations of requests.

    Args:
        cache: the pages.
        sessions: the conversations.
        tokenizer: text to ids and back.
        prefix_keys: tenant to what derives its pages' keys.
        limits: the bounds.
    """

    def __init__(
        self,
        cache: KVCache,
        sessions: SessionRegistry,
        tokenizer: TextTokenizer,
        prefix_keys: Callable[[str], PrefixKeys],
        limits: AdmissionLimits,
    ) -> None:
        self._cache = cache
        self._sessions = sessions
        self._tokenizer = tokenizer
        self._prefix_keys = prefix_keys
        self._limits = limits
        self._arrivals = itertools.count()

    def check_queue(self, num_queued: int, mean_request_s: float) -> None:
        """Refuses when the queue is full.

        Raises:
            Unavailable: with the time in which the queue should have moved on.
        """
        if num_queued >= self._limits.max_queued:
            rounds = num_queued / self._limits.max_running
            raise Unavailable(
                f"{num_queued} requests wait already.",
                allowed=f"{self._limits.max_queued} waiting requests",
                retry_after_ms=max(100, min(30_000, int(1000 * mean_request_s * rounds))),
                reason="queue_full",
            )

    def generation(self, request: GenerateRequest, prompt: Prompt, channel: ResponseChannel) -> Generation:
        """A generation at the end of its session's line, or with its choices made if it is the first in it.

        Raises:
            InvalidArgument: it could not be served, whatever the load; nothing has changed.
        """
        generation = Generation(request, prompt, channel, arrival=next(self._arrivals))
        if request.session_id is None:
            generation.choices = self.choices(generation)
            return generation
        known = self._sessions.find(request.tenant, request.session_id)
        session = known or Session(request.tenant, request.session_id, PageTable(self._prefix_keys(request.tenant)))
        generation.session = session
        if session.is_idle:
            generation.choices = self.choices(generation)
        if known is None:
            self._sessions.add(session)
        session.generations.append(generation)
        return generation

    def choices(self, generation: Generation) -> list[Choice]:
        """The choices of a generation whose turn has come; its session's table is cut to what the prompt keeps.

        Raises:
            InvalidArgument: the session is not as long as the client believes, or the prompt is too long.
        """
        request, session = generation.request, generation.session
        history = [] if session is None else session.token_ids
        if request.session_length is not None and request.session_length != len(history):
            raise InvalidArgument(
                f"session_length is {request.session_length} but the session holds {len(history)} tokens.",
                field="session_length",
                allowed=str(len(history)),
                reason="session_length",
            )
        token_ids = _with_history(history, generation.prompt)
        self._check_length(
            len(token_ids), request.sampling.max_tokens, "messages" if request.messages else "text_input"
        )
        if session is not None and generation.prompt.is_whole_history:
            self._cache.truncate(session.table, num_common(history, token_ids))
        return [self._choice(generation, index, token_ids) for index in range(request.sampling.n)]

    def _check_length(self, num_tokens: int, max_tokens: int, field: str) -> None:
        most = self._limits.max_model_tokens - 1
        if not 1 <= num_tokens <= most:
            raise InvalidArgument(
                f"The prompt has {num_tokens} tokens, history included.",
                field=field,
                allowed=f"1 to {most} tokens",
                reason="prompt_length",
            )
        total = min(num_tokens + max_tokens, self._limits.max_model_tokens)
        need = self._cache.pages_of_history(total, 1)
        pool = self._cache.store.num_pages
        if need.raw > pool.raw or need.sealed > pool.sealed:
            raise InvalidArgument(
                f"{total} tokens need {need.raw} raw and {need.sealed} sealed pages.",
                field="max_tokens",
                allowed=f"what fits {pool.raw} raw and {pool.sealed} sealed pages",
                reason="pool_size",
            )

    def _choice(self, generation: Generation, index: int, token_ids: list[int]) -> Choice:
        sampling, session = generation.request.sampling, generation.session
        decode = self._tokenizer.decode if sampling.skip_special_tokens else self._tokenizer.decode_all
        return Choice(
            generation,
            index,
            list(token_ids),
            num_prompt_tokens=len(token_ids),
            table=PageTable(self._prefix_keys(generation.request.tenant)) if session is None else session.table,
            seed=secrets.randbits(63) if sampling.seed is None else sampling.seed,
            text_stream=TextStream(
                decode,
                sampling.stop,
                sampling.include_stop_str_in_output,
                min_tokens=sampling.min_tokens,
                context_token_ids=token_ids[-NUM_CONTEXT_TOKENS:],
            ),
        )


def _with_history(history: list[int], prompt: Prompt) -> list[int]:
    if prompt.is_whole_history:
        return list(prompt.token_ids)
    if history:
        return history + list(prompt.token_ids)
    return [*prompt.start_token_ids, *prompt.token_ids]


def num_common(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens that two histories share from their start."""
    pairs = zip(one, other, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
