"""The sampler's meaning in plain NumPy: one row at a time, float64, always a full sort.

Rounding can put a draw on either side of a border and swap two tokens that are nearly equally likely, so what
comes out is a set of tokens: those within 1e-6 of right.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from folio_backend.sampler import SamplingRow
    from folio_backend.sampling_parameters import SamplingParameters

Floats = npt.NDArray[np.float64]

NEARBY = (-1e-6, 0.0, 1e-6)
WORD = 2**64 - 1


def possible_tokens(logits: Floats, row: SamplingRow) -> set[int]:
    """The tokens that the row may get; logits [vocabulary]."""
    adjusted = adjusted_logits(logits, row)
    if row.parameters.temperature < 1e-5:
        return set(np.flatnonzero(adjusted >= adjusted.max() - 1e-6).tolist())
    uniform = uniform_number(row.seed, row.choice, row.position)
    tokens: set[int] = set()
    for shift, nearby in product(NEARBY, NEARBY):
        kept = kept_weights(adjusted, row.parameters, nearby)
        token_id = drawn_token(kept, uniform + shift, is_sorted=is_sorted(row.parameters, len(kept)))
        swapped = np.isclose(kept, kept[token_id], rtol=1e-6, atol=0.0) & (adjusted != adjusted[token_id])
        tokens |= {token_id, *np.flatnonzero(swapped).tolist()}
    return tokens


def drawn_token(weights: Floats, uniform: float, *, is_sorted: bool) -> int:
    """The token at a point of the inverse CDF, in order of weight or of ids; weights [vocabulary]."""
    order = np.argsort(-weights, kind="stable") if is_sorted else np.arange(len(weights))
    ends = np.cumsum(weights[order])
    point = min(max(uniform, 0.0), 1.0) * ends[-1]
    last = int(np.flatnonzero(weights[order])[-1])
    return int(order[min(int(np.searchsorted(ends, point, side="right")), last)])


def is_sorted(parameters: SamplingParameters, vocabulary_size: int) -> bool:
    """Whether a draw goes from the likeliest token down instead of by token id."""
    return 0 < parameters.top_k < vocabulary_size or parameters.top_p < 1.0


def adjusted_logits(logits: Floats, row: SamplingRow) -> Floats:
    """After penalties and forbidden tokens, [vocabulary]."""
    adjusted: Floats = logits.astype(np.float64)
    parameters = row.parameters
    for token_id in {*row.prompt_token_ids, *row.output_token_ids}:
        penalty = parameters.repetition_penalty
        adjusted[token_id] *= 1 / penalty if adjusted[token_id] > 0 else penalty
    for token_id in set(row.output_token_ids):
        count = list(row.output_token_ids).count(token_id)
        adjusted[token_id] -= count * parameters.frequency_penalty + parameters.presence_penalty
    adjusted[list(row.forbidden_token_ids)] = -np.inf
    return adjusted


def kept_weights(adjusted: Floats, parameters: SamplingParameters, nearby: float = 0.0) -> Floats:
    """The weight of every token that the filters keep, else 0, [vocabulary]; bounds moved by `nearby`."""
    weights: Floats = np.exp((adjusted - adjusted.max()) / parameters.temperature)
    weights[weights < min(parameters.min_p * (1 + nearby), 1.0)] = 0.0
    order = np.argsort(-weights, kind="stable")
    if parameters.top_k:
        weights[order[parameters.top_k :]] = 0.0
    if parameters.top_p < 1.0:
        starts = np.cumsum(weights[order]) - weights[order]
        weights[order[starts >= (parameters.top_p + nearby) * weights.sum()]] = 0.0
    return weights


def uniform_number(seed: int, choice: int, position: int) -> float:
    """splitmix64 over the three numbers, one after the other, as a number in [0, 1)."""
    word = mixed(mixed(mixed(seed & WORD) ^ (choice & WORD)) ^ (position & WORD))
    return (word >> 12) / 2**52


def mixed(word: int) -> int:
    word = (word + 0x9E3779B97F4A7C15) & WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & WORD
    return word ^ (word >> 31)
