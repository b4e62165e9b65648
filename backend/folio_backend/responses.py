"""What a generation tells its client: one response per piece when streaming, one at the end otherwise.

Knows what has been sent of each choice and what is new. Does not know tensors or when a choice ends.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from folio_backend.generation import Choice, Generation
from folio_backend.sampler import SampledToken

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class GenerateResponse:
    """One response; tuples have an entry per choice.

    Attributes:
        texts: the new text, behind the prompt where that is echoed.
        finish_reasons: why each choice ended, "None" while it runs: vLLM's words.
        cumulative_logprobs: sum over all of the choice's tokens.
        logprobs: JSON of the new tokens' log-probabilities, "null" where none were asked for.
        num_input_tokens: tokens of the whole prompt, a session's history included.
        num_output_tokens: new tokens.
        num_cached_tokens: prompt tokens whose KV was not computed again; None in all but the first response.
        is_final: nothing follows.
    """

    texts: tuple[str, ...] = field(repr=False)
    finish_reasons: tuple[str, ...]
    cumulative_logprobs: tuple[float, ...]
    logprobs: tuple[str, ...]
    num_input_tokens: int
    num_output_tokens: tuple[int, ...]
    num_cached_tokens: int | None
    is_final: bool


@dataclass
class SentMark:
    """How much of a choice its client has."""

    num_characters: int = 0
    num_tokens: int = 0


class Responder:
    """Builds the responses of one generation, each beginning where the last one ended.

    Args:
        generation: the request; its choices exist.
        decode: token ids to text, for the log-probabilities' tokens.
    """

    def __init__(self, generation: Generation, decode: Decode) -> None:
        self._generation = generation
        self._decode = decode
        self._sent = [SentMark() for _ in generation.choices]
        self._is_first = True

    def next_response(self) -> GenerateResponse | None:
        """What is to be sent now; None when nothing is."""
        generation = self._generation
        is_final = generation.is_finished
        pairs = list(zip(generation.choices, self._sent, strict=True))
        has_text = any(len(choice.text) > sent.num_characters for choice, sent in pairs)
        if not is_final and not (generation.request.output.stream and has_text):
            return None
        response = GenerateResponse(
            texts=tuple(self._echo() + choice.text[sent.num_characters :] for choice, sent in pairs),
            finish_reasons=tuple(str(choice.finish_reason) for choice, _ in pairs),
            cumulative_logprobs=tuple(sum(token.logprob or 0.0 for token in choice.sampled) for choice, _ in pairs),
            logprobs=tuple(self._logprobs(choice, choice.sampled[sent.num_tokens :]) for choice, sent in pairs),
            num_input_tokens=generation.choices[0].num_prompt_tokens,
            num_output_tokens=tuple(len(choice.sampled) - sent.num_tokens for choice, sent in pairs),
            num_cached_tokens=(generation.choices[0].num_cached_tokens or 0) if self._is_first else None,
            is_final=is_final,
        )
        self._sent = [SentMark(len(choice.text), len(choice.sampled)) for choice in generation.choices]
        self._is_first = False
        return response

    def _echo(self) -> str:
        echoes = self._is_first and not self._generation.request.output.exclude_input
        return self._generation.prompt.text if echoes else ""

    def _logprobs(self, choice: Choice, tokens: Sequence[SampledToken]) -> str:
        if choice.generation.request.sampling.logprobs is None:
            return "null"
        return json.dumps([self._entries(token) for token in tokens])

    def _entries(self, token: SampledToken) -> dict[int, dict[str, object]]:
        return {
            token_id: {"logprob": logprob, "rank": rank, "decoded_token": self._decode([token_id])}
            for token_id, logprob, rank in token.top_logprobs
        }
