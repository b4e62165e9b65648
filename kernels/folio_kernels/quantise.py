"""Quantising blocks of a page within a kernel: ranges, clip search and codes.

Follows `encoding.encode_symmetric`, `encode_asymmetric` and `unshrunk` step by step, and gives the same numbers except
where the last bit of a quotient or a sum decides:

- a quotient is a product with the reciprocal, so an entry half-way between two codes, within a rounding error, may
  take the other one;
- the squared errors of a clip search are summed in another order and in units of the scale, so of two ratios as good
  as each other the other one may win;
- so are the sums behind a value's final scale and zero, which may round to the next fp16 number.

A kernel that calls these is compiled without contraction of products and sums (`enable_fp_fusion=False`), so that
scales and zeros round as the reference's; where a fused product may be used it is written out. Does not know pages.
"""

from __future__ import annotations

import triton
import triton.language as tl

from folio_kernels import encoding

FP16_MAX = tl.constexpr(encoding.FP16_MAX)
LEAST_SHARED = tl.constexpr(encoding.LEAST_SHARED)
ROUNDING = tl.constexpr(12582912.0)
"""1.5 * 2^23: adding it to a small float32 leaves the nearest integer, half to even, in the lowest bits."""


@triton.jit
def saturated_fp16(b_x):
    """What fp16 keeps of float32, bounded instead of infinite."""
    return tl.minimum(tl.maximum(b_x, -FP16_MAX), FP16_MAX).to(tl.float16)


@triton.jit
def nonzero(b_scale):
    """The scale in float32, 1 where it is zero: all entries are then the zero point, and every code is 0."""
    b_scale = b_scale.to(tl.float32)
    return tl.where(b_scale == 0, 1.0, b_scale)


@triton.jit
def reciprocal(b_scale):
    """What entries are multiplied with to be counted in steps of an fp16 scale; 1 where the scale is zero."""
    return tl.div_rn(tl.full(b_scale.shape, 1.0, tl.float32), nonzero(b_scale))


@triton.jit
def codes_of(b_x, b_reciprocal, LOWEST: tl.constexpr, HIGHEST: tl.constexpr):
    """The integers nearest to `b_x` in steps of its scale, within the bounds, as int32 bytes (two's complement)."""
    b_bounded = tl.minimum(tl.maximum(b_x * b_reciprocal, LOWEST), HIGHEST)
    return (b_bounded + ROUNDING).to(tl.int32, bitcast=True) & 255


@triton.jit
def symmetric_scale(b_largest):
    """The fp16 scale of signed 8-bit codes for entries up to `b_largest`."""
    return saturated_fp16(tl.div_rn(b_largest, tl.full(b_largest.shape, 127.0, tl.float32)))


@triton.jit
def asymmetric_range(b_parts, b_low, b_high, AXIS: tl.constexpr, LEVELS: tl.constexpr, RATIOS: tl.constexpr):
    """Scale and zero, fp16, of the share of the range from low to high that loses least; of equals the first.

    `b_parts` is a tuple of blocks that lie side by side along AXIS; low and high lack that dimension.
    """
    b_middle, b_reach = (b_low + b_high) / 2, (b_high - b_low) / 2
    b_best = tl.full(b_reach.shape, RATIOS[0], tl.float32)
    if len(RATIOS) > 1:
        b_least = tl.full(b_reach.shape, float("inf"), tl.float32)
        for index in tl.static_range(len(RATIOS)):
            b_zero = saturated_fp16(b_middle - RATIOS[index] * b_reach).to(tl.float32)
            b_scale = saturated_fp16(b_reach * (2 * RATIOS[index] / LEVELS)).to(tl.float32)
            b_error = squared_error(b_parts, b_zero, nonzero(b_scale), AXIS, LEVELS)
            b_best = tl.where(b_error < b_least, RATIOS[index], b_best)
            b_least = tl.minimum(b_error, b_least)
    b_scale = saturated_fp16(tl.div_rn(2 * b_best * b_reach, tl.full(b_reach.shape, LEVELS, tl.float32)))
    return b_scale, saturated_fp16(b_middle - b_best * b_reach)


@triton.jit
def unshrunk(b_scale, b_zero, b_code_sum, b_above_sum, b_product, b_square, COUNT: tl.constexpr):
    """Scale and zero, fp16, for codes chosen by them, such that what is lost has nothing in common with its source.

    The sums run over the COUNT entries that share a scale: of the codes, of what lies above the zero, of the products
    of the two, and of the latter's squares.
    """
    b_shared = b_product - b_code_sum * b_above_sum / COUNT
    b_spread = b_square - b_above_sum * b_above_sum / COUNT
    is_varying = b_shared > LEAST_SHARED * b_product
    b_found = saturated_fp16(tl.div_rn(b_spread, tl.where(is_varying, b_shared, 1.0)))
    b_found_zero = saturated_fp16(b_zero.to(tl.float32) + (b_above_sum - b_found.to(tl.float32) * b_code_sum) / COUNT)
    return tl.where(is_varying, b_found, b_scale), tl.where(is_varying, b_found_zero, b_zero)


@triton.jit
def squared_error(b_parts, b_zero, b_step, AXIS: tl.constexpr, LEVELS: tl.constexpr):
    """What quantising the parts loses, summed along AXIS: seven operations an entry."""
    b_inverse = 1.0 / b_step
    b_offset = tl.expand_dims(-b_zero * b_inverse, AXIS)
    b_factor = tl.expand_dims(b_inverse, AXIS)
    b_sum = tl.zeros(b_parts[0].shape, tl.float32)
    for part in tl.static_range(len(b_parts)):
        b_place = tl.fma(b_parts[part].to(tl.float32), b_factor, b_offset)
        b_code = (tl.minimum(tl.maximum(b_place, 0.0), LEVELS) + ROUNDING) - ROUNDING
        b_difference = b_code - b_place
        b_sum = tl.fma(b_difference, b_difference, b_sum)
    return tl.sum(b_sum, AXIS) * b_step * b_step
