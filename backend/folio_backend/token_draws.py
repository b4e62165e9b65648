"""Random draws of tokens from a batch of logits, with and without top_k and top_p.

A draw is an inverse CDF at a number that hangs on (seed, choice, position) alone: batch mates change nothing.
Among equally likely tokens the one with the lower id comes first. Does not know requests nor penalties.

Weights here are float32 [rows, vocabulary]: probabilities relative to the likeliest token's, which weighs 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

# How many of the likeliest tokens are looked at, one after the other, before a row is sorted as a whole.
_NUMS_CANDIDATES = (256, 4096)
# Weights are summed in blocks of this many tokens: a draw scans the sums, then one block.
_BLOCK_TOKENS = 256


def uniform_numbers(seeds: Sequence[int], choices: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
    """A number in [0, 1) for each row, a pure function of three integers' low 64 bits, float64 [rows]."""
    mixed = _mix(_mix(_mix(_words(seeds)) ^ _words(choices)) ^ _words(positions))
    # 52 bits, not 53: the number times a total then always rounds to less than the total.
    return torch.from_numpy((mixed >> np.uint64(12)).astype(np.float64) * 2.0**-52)


def _words(numbers: Sequence[int]) -> npt.NDArray[np.uint64]:
    return np.array([number & 0xFFFF_FFFF_FFFF_FFFF for number in numbers], dtype=np.uint64)


def _mix(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The step of the splitmix64 generator: a bijection that spreads every bit over all 64."""
    words = words + np.uint64(0x9E37_79B9_7F4A_7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    return words ^ (words >> np.uint64(31))


def token_weights(logits: torch.Tensor, temperatures: Sequence[float], min_ps: Sequence[float]) -> torch.Tensor:
    """The weight of every token after temperature and min_p.

    Args:
        logits: float32 [rows, vocabulary], overwritten; a row of nothing but -inf gets only zeros.
        temperatures: one a row, above 0.
        min_ps: one a row; a token of less weight gets zero.

    Returns:
        float32 [rows, vocabulary].
    """
    peaks = logits.amax(dim=-1, keepdim=True)
    temperature = torch.tensor(temperatures, dtype=logits.dtype, device=logits.device)[:, None]
    weights = logits.sub_(peaks.masked_fill(peaks == -torch.inf, 0.0)).div_(temperature).exp_()
    if any(min_ps):
        min_p = torch.tensor(min_ps, dtype=logits.dtype, device=logits.device)[:, None]
        weights.masked_fill_(weights < min_p, 0.0)
    return weights


def draw_from_all(weights: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Draw from the whole vocabulary, in order of ids, without sorting.

    Args:
        weights: [rows, vocabulary]; a row of zeros gets an id that means nothing.
        uniforms: float64 [rows] in [0, 1).

    Returns:
        Token ids, int64 [rows].
    """
    blocks = _blocks(weights)
    ends = blocks.sum(dim=-1).double().cumsum(dim=-1)
    points = uniforms * ends[:, -1]
    block = _first_above(ends, points)
    starts = torch.nn.functional.pad(ends[:, :-1], (1, 0))
    within = blocks[torch.arange(len(blocks), device=blocks.device), block].double().cumsum(dim=-1)
    # The block's float32 sum may exceed the float64 one by a rounding: the point must stay inside the block.
    last_point = torch.nextafter(within[:, -1], torch.zeros_like(points))
    offset = _first_above(within, torch.minimum(points - _at(starts, block), last_point))
    return block * _BLOCK_TOKENS + offset


def draw_from_best(
    weights: torch.Tensor, top_ks: Sequence[int], top_ps: Sequence[float], uniforms: torch.Tensor
) -> torch.Tensor:
    """Draw from what top_k, then top_p leave; sorts a whole row only where it has to.

    Args:
        weights: [rows, vocabulary]; a row of zeros gets an id that means nothing.
        top_ks: one a row, 0 for off.
        top_ps: one a row, 1.0 for off.
        uniforms: float64 [rows] in [0, 1).

    Returns:
        Token ids, int64 [rows].
    """
    filters = _filters(weights, top_ks, top_ps, uniforms)
    vocabulary_size = weights.shape[-1]
    token_ids = torch.empty(len(weights), dtype=torch.int64, device=weights.device)
    rows = torch.arange(len(weights), device=weights.device)
    for num_candidates in (*_NUMS_CANDIDATES, vocabulary_size):
        # The one more shows whether the last candidate is tied with a token left out.
        values, candidates = best_tokens(weights, min(num_candidates + 1, vocabulary_size))
        places, is_enough = _draw_sorted(values, filters, vocabulary_size)
        token_ids[rows] = _at(candidates, places)
        if is_enough.all():
            break
        rows, weights, filters = rows[~is_enough], weights[~is_enough], filters.of_rows(~is_enough)
    return token_ids


def best_tokens(values: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` greatest values of each row and their ids, [rows, count], greatest first, then by id."""
    if count == values.shape[-1]:
        return torch.sort(values, dim=-1, descending=True, stable=True)
    unordered, ids = values.topk(count, dim=-1)
    ids, order = ids.sort(dim=-1)
    best, order = torch.sort(unordered.gather(-1, order), dim=-1, descending=True, stable=True)
    return best, ids.gather(-1, order)


@dataclass(frozen=True)
class _Filters:
    """What top_k and top_p leave of each row, and where to draw in it; all [rows].

    Args:
        limits: most tokens that top_k leaves, int64; the vocabulary's size where it is off.
        nuclei: share of the weight after top_k that top_p wants, float64.
        totals: weight of the whole vocabulary, float64.
        uniforms: the random number, float64 in [0, 1).
    """

    limits: torch.Tensor
    nuclei: torch.Tensor
    totals: torch.Tensor
    uniforms: torch.Tensor

    def of_rows(self, rows: torch.Tensor) -> _Filters:
        return _Filters(self.limits[rows], self.nuclei[rows], self.totals[rows], self.uniforms[rows])


def _filters(weights: torch.Tensor, top_ks: Sequence[int], top_ps: Sequence[float], uniforms: torch.Tensor) -> _Filters:
    vocabulary_size = weights.shape[-1]
    limits = [min(top_k or vocabulary_size, vocabulary_size) for top_k in top_ks]
    return _Filters(
        limits=torch.tensor(limits, device=weights.device),
        nuclei=torch.tensor(top_ps, dtype=torch.float64, device=weights.device),
        totals=_blocks(weights).sum(dim=-1).sum(dim=-1, dtype=torch.float64),
        uniforms=uniforms,
    )


def _draw_sorted(values: torch.Tensor, filters: _Filters, vocabulary_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw from the greatest weights of each row, sorted downwards, [rows, values].

    Returns:
        The place drawn, int64 [rows], and whether the values were enough to know what the filters leave, bool
        [rows].
    """
    num_values = values.shape[-1]
    ends = values.cumsum(dim=-1, dtype=torch.float64)
    starts = torch.nn.functional.pad(ends[:, :-1], (1, 0))
    limited_totals = _at(ends, filters.limits.clamp(max=num_values) - 1)
    totals = torch.where(filters.limits <= num_values, limited_totals, filters.totals)
    is_kept = (torch.arange(num_values, device=values.device) < filters.limits[:, None]) & (
        starts < (filters.nuclei * totals)[:, None]
    )
    last = (is_kept.sum(dim=-1) - 1).clamp(min=0)
    is_total_known = (filters.limits <= num_values) | (filters.limits == vocabulary_size)
    is_enough = is_total_known & (_at(values, last) > values[:, -1]) | (num_values == vocabulary_size)
    return _first_above(ends, filters.uniforms * _at(ends, last)), is_enough


def _blocks(weights: torch.Tensor) -> torch.Tensor:
    """[rows, blocks, tokens of a block], the last block filled up with zeros."""
    padded = torch.nn.functional.pad(weights, (0, -weights.shape[-1] % _BLOCK_TOKENS))
    return padded.view(len(weights), -1, _BLOCK_TOKENS)


def _first_above(cumulative: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """The first place in each row of a growing sum that lies above the row's point, int64 [rows]."""
    return (cumulative <= points[:, None]).sum(dim=-1).clamp(max=cumulative.shape[-1] - 1)


def _at(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The value at one place of each row, [rows]."""
    return values.gather(-1, places[:, None])[:, 0]
