"""Rounds 4-bit keys for the queries that will read them.

Attention reads a key as its products with queries, and queries have a mean: an error that the mean query sees is made
by all of them. So an error `e` of a key counts as `(mean . e)^2 + sum(spread * e^2)`, and a key's dims are rounded in
stages, each one making up for what the stages before it did to the product with the mean query. That is the order of
GPTQ (Frantar et al., 2022) for a matrix of one vector and a diagonal, by blocks of dims.

Decoding knows nothing of it. Neither does this module know where queries come from.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from folio_kernels.encoding import nonzero

GUIDED_BITS = 4
"""Keys of so many bits follow a guide; with 8 there is nothing to gain."""
STAGES = 8
"""Into how many parts the dims of a key are cut. One dim at a time gains no more."""
MOST_STEPS = 0.5
"""A key is moved by at most so many steps of its scale before it is rounded: it takes one of its two neighbours."""
LEAST_SPREAD = 1e-6
"""As a share of the mean query's squares: what a channel without any spread is taken to have."""


def stages(head_dim: int) -> Iterator[slice]:
    """The dims of each stage, from the middle and the end of a head down to its beginning.

    RoPE turns dims near the middle and the end slowest, so the mean query lies there; the many small products come
    last and even out what is left. Every two stages are the dims that share bytes.
    """
    width, half = head_dim // STAGES, head_dim // 2
    for first in range(half - width, -1, -width):
        yield slice(first, first + width)
        yield slice(half + first, half + first + width)


def guide_for(mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """What keys are rounded by, from the queries' mean and variance `[..., head_dim]`: float32 `[..., 2, head_dim]`.

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


def guided_codes(
    keys: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, bits: int, guide: torch.Tensor
) -> torch.Tensor:
    """The codes of keys.

    Args:
        keys: `[..., page_size, head_dim]` float32.
        scale: `[..., head_dim]` fp16.
        zero: as the scale.
        bits: of a code.
        guide: `[..., 2, head_dim]`, see `guide_for`.

    Returns:
        int32 of the keys' shape.
    """
    mean, gain = guide.unsqueeze(-2).unbind(-3)
    scale, zero = scale.unsqueeze(-2).float(), zero.unsqueeze(-2).float()
    steps, codes, owed = (keys - zero) / nonzero(scale), torch.empty_like(keys), torch.zeros_like(keys[..., :1])
    for dims in stages(keys.shape[-1]):
        moved = (owed * (gain / nonzero(scale))[..., dims]).clamp(-MOST_STEPS, MOST_STEPS)
        code = torch.round(steps[..., dims] - moved).clamp(0, (1 << bits) - 1)
        lost = code * scale[..., dims] + zero[..., dims] - keys[..., dims]
        owed = owed + _row_sums(lost * mean[..., dims])
        codes[..., dims] = code
    return codes.to(torch.int32)


def _row_sums(x: torch.Tensor) -> torch.Tensor:
    """Sums over the last dim, in an order that no compiler changes: codes must not depend on who computed them."""
    while x.shape[-1] > 1:
        first, second = x.chunk(2, -1)
        x = first + second
    return x
