"""Visits to an attention model: sessions of random tensors, and what can be known of their answers."""

from __future__ import annotations

import time
from contextlib import suppress

import numpy as np

from folio_client import AttentionResult, Client, NotFound
from folio_client.session_state import new_session_id
from folio_loadtests.asking import Asker
from folio_loadtests.sample import Outcome
from folio_loadtests.workload import AttentionShape, KindOfUser

TOLERANCE = 1e-2


class AttentionSteps:
    """A session: some tokens at first, then one a step.

    Args:
        asker: makes the requests.
        client: knows the attention model.
        user: how many steps.
        shape: the model's.
        seed: of the tensors.
    """

    def __init__(self, asker: Asker, client: Client, user: KindOfUser, shape: AttentionShape, seed: int) -> None:
        self._asker, self._client, self._shape = asker, client, shape
        self._num_left = user.num_turns
        self._draw = np.random.default_rng(seed)
        self._session_id = new_session_id()
        self._length = 0

    def ask(self, intended_s: float) -> bool:
        """See `Activity`. One that lost its pages begins again: there are no tokens to recompute from."""
        num_tokens = 1 if self._length else self._shape.num_prompt_tokens
        shape = self._shape
        query = self._tensor(num_tokens, shape.num_heads)
        key, value = self._tensor(num_tokens, shape.num_kv_heads), self._tensor(num_tokens, shape.num_kv_heads)
        self._num_left -= 1
        with self._asker.asking("attention", intended_s) as ask:
            try:
                result = self._client.attention.step(self._session_id, query, key, value, position=self._length)
            except NotFound:  # its pages were evicted: a limit doing its work
                ask.fail("the session was evicted", Outcome.REFUSED)
                self._length = 0
            else:
                if wrong := _what_is_wrong(result, query, value, self._length):
                    ask.fail(wrong, Outcome.WRONG)
        if ask.outcome is Outcome.OK:
            self._length += num_tokens
        elif ask.outcome is not Outcome.REFUSED:
            self.close()
        return self._num_left > 0

    def close(self) -> None:
        """See `Activity`. What follows is another session."""
        if self._length:
            with self._asker.asking("close", time.monotonic()), suppress(NotFound):
                self._client.attention.admin.close(self._session_id)
        self._session_id, self._length = new_session_id(), 0

    def _tensor(self, num_tokens: int, num_heads: int) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
        drawn = self._draw.standard_normal((num_tokens, num_heads, self._shape.head_dim), dtype=np.float32)
        return drawn.astype(self._shape.dtype)


def _what_is_wrong(
    result: AttentionResult,
    query: np.ndarray[tuple[int, ...], np.dtype[np.generic]],
    value: np.ndarray[tuple[int, ...], np.dtype[np.generic]],
    length: int,
) -> str:
    """What a client can know: length, shape, finite numbers, and that a first token sees its own value alone."""
    if result.length != length + len(query):
        return f"length {result.length} for {length + len(query)}"
    output = np.asarray(result.output, dtype=np.float32)
    if output.shape != query.shape or not np.isfinite(output).all():
        return "the output's shape or numbers"
    own = np.repeat(value[0].astype(np.float32), query.shape[1] // value.shape[1], axis=0)
    if length == 0 and not np.allclose(output[0], own, atol=TOLERANCE):
        return "the first token's output is not its value"
    return ""
