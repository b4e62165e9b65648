"""What a codec does to numbers, in plain PyTorch: codes and bytes, ranges, scales and zeros.

The CPU path compiles these functions as they are, the sealing kernel says them once more in the Triton language. Knows
tensors and the dimension that shares a range; not which of them are keys.
"""

from __future__ import annotations

import torch

FP16_MAX = 65504.0
CLIP_RATIOS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
"""Shares of a token's value range that the encoder tries; the one of least squared error wins."""
UNSHRUNK_BITS = 2
"""Values of at most so many bits have their scale corrected for what clipping shrinks; with more it is too little."""
LEAST_SHARED = 2.0**-10
"""Codes that vary less, as a share of their products with what they encode, vary by rounding alone: one entry of 256
that differs from the others is a 256th."""


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Packs codes `[..., D]` of `bits` bits (integers in int32) into bytes `[..., D * bits / 8]` uint8."""
    streams = codes.unflatten(-1, (8 // bits, -1)).unbind(-2)
    packed = streams[0]
    for index, stream in enumerate(streams[1:], start=1):
        packed = packed | (stream << (index * bits))
    return packed.to(torch.uint8)


def unpack(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """Unpacks bytes `[..., D * bits / 8]` into unsigned codes `[..., D]` float32."""
    words = packed.to(torch.int32)
    mask = (1 << bits) - 1
    return torch.cat([((words >> shift) & mask).float() for shift in range(0, 8, bits)], dim=-1)


def codes_of(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """The codes of a field of codes as float32 `[..., D]`: signed at 8 bits, unsigned below."""
    if bits == 8:
        return packed.view(torch.int8).float()
    return unpack(packed, bits)


def encode_symmetric(x: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """8 bits, one scale for all entries along `dim`: signed codes as uint8, and fp16 scales without `dim`."""
    scale = to_fp16(x.abs().amax(dim, keepdim=True) / 127)
    codes = torch.round(x / nonzero(scale)).clamp(-127, 127)
    return (codes.to(torch.int32) & 255).to(torch.uint8), scale.squeeze(dim)


def encode_asymmetric(
    x: torch.Tensor, dim: int, bits: int, clip_ratios: tuple[float, ...]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`bits` bits, one scale and zero for all entries along `dim`: int32 codes, fp16 scales and zeros without `dim`."""
    low, high = x.amin(dim, keepdim=True), x.amax(dim, keepdim=True)
    middle, reach = (low + high) / 2, (high - low) / 2
    best = _quantise(x, middle - reach, 2 * reach, bits)
    for ratio in clip_ratios[1:]:
        tried = _quantise(x, middle - ratio * reach, 2 * ratio * reach, bits)
        better = _squared_error(x, tried, dim) < _squared_error(x, best, dim)
        codes, scale, zero = (torch.where(better, new, old) for new, old in zip(tried, best, strict=True))
        best = (codes, scale, zero)
    codes, scale, zero = best
    return codes.to(torch.int32), scale.squeeze(dim), zero.squeeze(dim)


def unshrunk(
    x: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, dim: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero for given codes, such that what is lost has nothing in common with `x`.

    A clipped range loses the ends of `x`: what is decoded leans towards the middle. Attention averages values over
    tokens; what is lost at random averages out, what always leans one way stays.

    Args:
        x: what was encoded.
        codes: int32, of its shape.
        scale: fp16 without `dim`, as it was chosen; kept where the codes hardly vary.
        zero: as the scale.
        dim: along which entries share them.
    """
    numbers, above, count = codes.float(), x - zero.float().unsqueeze(dim), x.shape[dim]
    code_sum, above_sum, product = numbers.sum(dim), above.sum(dim), (numbers * above).sum(dim)
    shared = product - code_sum * above_sum / count
    spread = above.square().sum(dim) - above_sum.square() / count
    varies = shared > LEAST_SHARED * product
    found = to_fp16(spread / torch.where(varies, shared, 1.0))
    new_zero = to_fp16(zero.float() + (above_sum - found.float() * code_sum) / count)
    return torch.where(varies, found, scale), torch.where(varies, new_zero, zero)


def _quantise(
    x: torch.Tensor, low: torch.Tensor, extent: torch.Tensor, bits: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    levels = (1 << bits) - 1
    scale, zero = to_fp16(extent / levels), to_fp16(low)
    codes = torch.round((x - zero) / nonzero(scale)).clamp(0, levels)
    return codes, scale, zero


def _squared_error(x: torch.Tensor, coded: tuple[torch.Tensor, torch.Tensor, torch.Tensor], dim: int) -> torch.Tensor:
    codes, scale, zero = coded
    return (codes * scale + zero - x).square().sum(dim, keepdim=True)


def to_fp16(x: torch.Tensor) -> torch.Tensor:
    """What fp16 keeps of float32, bounded instead of infinite."""
    return x.clamp(-FP16_MAX, FP16_MAX).to(torch.float16)


def nonzero(scale: torch.Tensor) -> torch.Tensor:
    """The scale as float32, one where it is zero: all entries are then the zero point, and every code is 0."""
    return torch.where(scale == 0, 1.0, scale.float())
