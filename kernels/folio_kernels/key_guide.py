"""Encodes 4-bit keys for the queries that will read them.

Attention reads a key as its products with queries, and queries have a mean. Two things follow:

- A token whose product with the mean query is large is read by most of them. So once a channel's range is found, its
  scale and zero are fitted anew, by least squares, with tokens weighed by the attention that the mean query pays them.
- An error that the mean query sees is made by all queries. So an error `e` of a key counts as
  `(mean . e)^2 + sum(spread * e^2)`, and a key's dims are rounded in stages, each one making up for what the stages
  before it did to the product with the mean query. That is the order of GPTQ (Frantar et al., 2022) for a matrix of one
  vector and a diagonal, by blocks of dims.

Decoding knows nothing of it. Neither does this module know where queries come from.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from folio_kernels.encoding import FP16_MAX, nonzero, to_fp16

STAGES = 8
"""Into how many parts the dims of a key are cut. One dim at a time gains little more."""
MOST_STEPS = 1.0
"""A key is moved by at most so many steps of its scale before it is rounded."""
LEAST_SPREAD = 1e-6
"""As a share of the mean query's squares: what a channel without any spread is taken to have."""
LEAST_EXPONENT = -10
"""Weights are powers of two, the largest 1: sums of them are exact, in any order."""
EQUAL_SHARE = 2.0**-7
"""What every token's weight gets of the sum of all, so that none is given up: a third of it is shared equally."""
LEAST_VARIED = 2.0**-10
"""Codes whose variance is a smaller share of their squares leave a scale as it is."""
SCALE_BOUNDS = (0.75, 1.125)
"""What a fitted scale may be of the one that spans the range."""
LOG2_E = 1.4426950408889634


def product_scale(head_dim: int) -> float:
    """What a product with the mean query is multiplied by to be a score, as a power of two counts it."""
    return LOG2_E * head_dim**-0.5


def stages(head_dim: int) -> Iterator[slice]:
    """The dims of each stage, from the end and the middle of a head down to its beginning.

    RoPE turns dims near the end and the middle slowest, so the mean query lies there; the many small products come last
    and even out what is left. Every two stages are the dims that share bytes.
    """
    width, half = head_dim // STAGES, head_dim // 2
    for first in range(half - width, -1, -width):
        yield slice(half + first, half + first + width)
        yield slice(first, first + width)


def guide_for(mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """What keys are encoded by, from the queries' mean and variance `[..., head_dim]`: float32 `[..., 2, head_dim]`.

    The first row is the mean query, the second how far a dim moves for each unit that is owed to the product with it.
    The spread of a dim lies half-way between its own variance and the head's.
    """
    spread = (variance + variance.mean(-1, keepdim=True)) / 2
    least = LEAST_SPREAD * mean.square().mean(-1, keepdim=True) + torch.finfo(torch.float32).tiny
    weight = mean / torch.maximum(spread, least)
    left, gain = 1 + (mean * weight).sum(-1, keepdim=True), torch.empty_like(mean)
    for dims in stages(mean.shape[-1]):
        gain[..., dims] = weight[..., dims] / left
        left = left - (mean * weight)[..., dims].sum(-1, keepdim=True)
    return torch.stack([mean, gain], -2).float()


def attention_weights(keys: torch.Tensor, guide: torch.Tensor) -> torch.Tensor:
    """How much each key of a page matters: `[..., page_size, 1]`, for keys `[..., page_size, head_dim]` float32.

    The mean query's softmax over the page to the nearest power of two, and an equal share for all.
    """
    products = (keys * guide[..., :1, :]).sum(-1, keepdim=True) * product_scale(keys.shape[-1])
    exponents = torch.round(products - products.amax(-2, keepdim=True)).clamp_min(LEAST_EXPONENT)
    weights = torch.exp2(exponents)
    return weights + EQUAL_SHARE * weights.sum(-2, keepdim=True)


def fitted_ranges(
    keys: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, guide: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and zeros that lose least of what is read, for given codes.

    Args:
        keys: `[..., page_size, head_dim]` float32.
        codes: of their shape.
        scale: `[..., head_dim]` fp16, as the range gives it; kept where the codes hardly vary.
        zero: as the scale; both are kept where fp16 does not hold the fitted one.
        guide: `[..., 2, head_dim]`, see `guide_for`.
    """
    weights = attention_weights(keys, guide)
    total, numbers, above = weights.sum(-2), codes.float(), keys - zero.float().unsqueeze(-2)
    code_sum, above_sum = (weights * numbers).sum(-2), (weights * above).sum(-2)
    squares = (weights * numbers * numbers).sum(-2)
    products = (weights * numbers * above).sum(-2)
    variance = squares - code_sum * code_sum / total
    varies = variance > LEAST_VARIED * squares
    slope = (products - code_sum * above_sum / total) / torch.where(varies, variance, 1.0)
    least, most = (bound * scale.float() for bound in SCALE_BOUNDS)
    fitted = to_fp16(torch.minimum(torch.maximum(slope, least), most))
    fitted_zero = zero.float() + (above_sum - fitted.float() * code_sum) / total
    fits = varies & (fitted_zero.abs() <= FP16_MAX)
    return torch.where(fits, fitted, scale), torch.where(fits, to_fp16(fitted_zero), zero)


def guided_codes(
    keys: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, bits: int, guide: torch.Tensor
) -> torch.Tensor:
    """The codes of keys `[..., page_size, head_dim]` float32, for scales and zeros `[..., head_dim]`: int32."""
    mean, gain = guide.unsqueeze(-2).unbind(-3)
    scale, zero = scale.unsqueeze(-2).float(), zero.unsqueeze(-2).float()
    steps, owed = (keys - zero) / nonzero(scale), torch.zeros_like(keys[..., :1])
    parts: dict[int, torch.Tensor] = {}
    for dims in stages(keys.shape[-1]):
        moved = (owed * (gain / nonzero(scale))[..., dims]).clamp(-MOST_STEPS, MOST_STEPS)
        code = torch.round(steps[..., dims] - moved).clamp(0, (1 << bits) - 1)
        lost = code * scale[..., dims] + zero[..., dims] - keys[..., dims]
        owed = owed + (lost * mean[..., dims]).sum(-1, keepdim=True)
        parts[dims.start] = code
    return torch.cat([parts[first] for first in sorted(parts)], -1).to(torch.int32)
