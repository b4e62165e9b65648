"""Which token each row takes next, and its log-probability.

Works on the whole batch at once; what a row gets hangs on that row alone. Does not know requests, text, or
when a row ends.

The order is vLLM's: penalties for repetition, frequency and presence, forbidden tokens, temperature, min_p,
top_k, top_p.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from folio_backend.errors import Internal
from folio_backend.penalties import apply_output_penalties, apply_repetition_penalty, forbid
from folio_backend.token_draws import (
    best_tokens,
    draw_from_all,
    draw_from_best,
    token_weights,
    uniform_numbers,
)

if TYPE_CHECKING:
    from folio_backend.sampling_parameters import SamplingParameters

# (token id, log-probability under the raw logits, rank counted from 1)
TokenLogprob = tuple[int, float, int]

_NO_TOKEN = -1


@dataclass(frozen=True)
class SamplingRow:
    """What the sampler has to know of one row of the batch.

    Args:
        parameters: how its tokens are chosen.
        seed: any integer; its low 64 bits count.
        choice: which of the request's `n` choices this is.
        position: how many tokens the choice has generated before this one.
        prompt_token_ids: read by the repetition penalty alone.
        output_token_ids: what the choice has generated; read by the penalties alone.
        forbidden_token_ids: tokens that may not be chosen now, while `min_tokens` is not reached.
        needs_logprob: report the chosen token's log-probability even when `parameters.logprobs` is None.
    """

    parameters: SamplingParameters
    seed: int
    choice: int
    position: int
    prompt_token_ids: Sequence[int] = ()
    output_token_ids: Sequence[int] = ()
    forbidden_token_ids: Sequence[int] = ()
    needs_logprob: bool = False


@dataclass(frozen=True)
class SampledToken:
    """The token that a row takes.

    Args:
        token_id: the token.
        logprob: its log-probability under the raw logits; None unless the row asked.
        top_logprobs: the `logprobs` likeliest tokens, likeliest first, then the chosen one where it is not
            among them; empty unless the row asked. Tokens that the model rules out are left out.
    """

    token_id: int
    logprob: float | None = None
    top_logprobs: tuple[TokenLogprob, ...] = ()


def sample(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> list[SampledToken | Internal]:
    """Choose the next token of every row.

    Args:
        logits: [rows, vocabulary], any float dtype, on any device; left as they are. -inf rules a token out.
        rows: one for each row of the logits, in the same order.

    Returns:
        One entry a row, in order: the token, or an Internal error (returned, not raised) where the row has no
        answer: its logits hold NaN or +inf, or every token is ruled out or forbidden. Other rows go on.
    """
    assert logits.shape[:-1] == (len(rows),), (tuple(logits.shape), len(rows))
    # One pass gives the greedy answer and shows NaN (max hands it on), +inf, and a row of nothing but -inf.
    peaks, likeliest = logits.max(dim=-1)
    token_ids: list[int] = likeliest.masked_fill(~torch.isfinite(peaks), _NO_TOKEN).tolist()
    for choose, indices in _groups(rows, token_ids, logits.shape[-1]):
        group = [rows[index] for index in indices]
        adjusted = _adjusted_logits(logits[indices], group)
        is_any_left = adjusted.amax(dim=-1) > -torch.inf
        chosen = choose(adjusted, group).masked_fill(~is_any_left, _NO_TOKEN)
        for index, token_id in zip(indices, chosen.tolist(), strict=True):
            token_ids[index] = token_id
    return _answers(logits, rows, token_ids)


_Chooser = Callable[[torch.Tensor, Sequence[SamplingRow]], torch.Tensor]


def _groups(
    rows: Sequence[SamplingRow], token_ids: Sequence[int], vocabulary_size: int
) -> list[tuple[_Chooser, list[int]]]:
    """The rows whose token is not the argmax of the raw logits, by the way it is chosen."""
    groups: dict[_Chooser, list[int]] = {_choose_likeliest: [], _choose_from_all: [], _choose_from_best: []}
    for index, row in enumerate(rows):
        parameters = row.parameters
        if token_ids[index] == _NO_TOKEN:
            continue
        if not parameters.is_greedy:
            is_filtered = 0 < parameters.top_k < vocabulary_size or parameters.top_p < 1.0
            groups[_choose_from_best if is_filtered else _choose_from_all].append(index)
        elif row.forbidden_token_ids or _penalises_prompt(parameters) or _penalises_output(parameters):
            groups[_choose_likeliest].append(index)
    return [(choose, indices) for choose, indices in groups.items() if indices]


def _choose_likeliest(logits: torch.Tensor, _rows: Sequence[SamplingRow]) -> torch.Tensor:
    return logits.argmax(dim=-1)


def _choose_from_all(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> torch.Tensor:
    return draw_from_all(_weights(logits, rows), _uniforms(rows, logits.device))


def _choose_from_best(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> torch.Tensor:
    top_ks = [row.parameters.top_k for row in rows]
    top_ps = [row.parameters.top_p for row in rows]
    return draw_from_best(_weights(logits, rows), top_ks, top_ps, _uniforms(rows, logits.device))


def _weights(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> torch.Tensor:
    temperatures = [row.parameters.temperature for row in rows]
    return token_weights(logits, temperatures, [row.parameters.min_p for row in rows])


def _uniforms(rows: Sequence[SamplingRow], device: torch.device) -> torch.Tensor:
    seeds, choices, positions = zip(*((row.seed, row.choice, row.position) for row in rows), strict=True)
    return uniform_numbers(seeds, choices, positions).to(device)


def _adjusted_logits(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> torch.Tensor:
    """float32 [rows, vocabulary] after penalties and forbidden tokens; may write over `logits`."""
    adjusted = logits.float()
    apply_repetition_penalty(
        adjusted,
        [row.parameters.repetition_penalty for row in rows],
        [(*row.prompt_token_ids, *row.output_token_ids) if _penalises_prompt(row.parameters) else () for row in rows],
    )
    apply_output_penalties(
        adjusted,
        [row.parameters.frequency_penalty for row in rows],
        [row.parameters.presence_penalty for row in rows],
        [row.output_token_ids if _penalises_output(row.parameters) else () for row in rows],
    )
    forbid(adjusted, [row.forbidden_token_ids for row in rows])
    return adjusted


def _penalises_prompt(parameters: SamplingParameters) -> bool:
    return parameters.repetition_penalty != 1.0


def _penalises_output(parameters: SamplingParameters) -> bool:
    return parameters.frequency_penalty != 0.0 or parameters.presence_penalty != 0.0


def _answers(
    logits: torch.Tensor, rows: Sequence[SamplingRow], token_ids: Sequence[int]
) -> list[SampledToken | Internal]:
    """The tokens with what their rows ask to know of them, and an error for each row that has no token."""
    answers: list[SampledToken | Internal] = [
        SampledToken(token_id) if token_id != _NO_TOKEN else _no_token_error() for token_id in token_ids
    ]
    asking = [
        index
        for index, row in enumerate(rows)
        if token_ids[index] != _NO_TOKEN and (row.needs_logprob or row.parameters.logprobs is not None)
    ]
    if asking:
        nums_top = [rows[index].parameters.logprobs for index in asking]
        reported = _with_logprobs(logits[asking].float(), [token_ids[index] for index in asking], nums_top)
        for index, answer in zip(asking, reported, strict=True):
            answers[index] = answer
    return answers


def _no_token_error() -> Internal:
    return Internal("The model's logits leave no token to choose: not finite, or all tokens forbidden.")


def _with_logprobs(
    logits: torch.Tensor, token_ids: Sequence[int], nums_top: Sequence[int | None]
) -> list[SampledToken]:
    """The tokens with their log-probabilities; raw logits, float32 [rows, vocabulary]."""
    normalisers = logits.logsumexp(dim=-1, keepdim=True)
    values = logits.gather(-1, torch.tensor(token_ids, device=logits.device)[:, None])
    ranks = ((logits > values).sum(dim=-1) + 1).tolist()
    logprobs = (values - normalisers)[:, 0].tolist()
    best, best_ids = best_tokens(logits, min(max(num or 0 for num in nums_top), logits.shape[-1]))
    top = [
        [(token_id, logprob, rank) for rank, (token_id, logprob) in enumerate(pairs, start=1)]
        for pairs in map(zip, best_ids.tolist(), (best - normalisers).tolist())
    ]
    return [
        SampledToken(chosen[0], chosen[1], () if num is None else _with_chosen(likeliest[:num], chosen))
        for num, likeliest, chosen in zip(nums_top, top, zip(token_ids, logprobs, ranks, strict=True), strict=True)
    ]


def _with_chosen(likeliest: Sequence[TokenLogprob], chosen: TokenLogprob) -> tuple[TokenLogprob, ...]:
    possible = tuple(entry for entry in likeliest if entry[1] > -math.inf)
    is_among = any(entry[0] == chosen[0] for entry in possible)
    return possible if is_among else (*possible, chosen)
