"""Encoding 4-bit keys by a guide, within the sealing kernel: `key_guide` in the Triton language.

Sums over tokens and dims are taken in another order than there: a scale or a zero may be the next fp16 number, and a
key that lies half-way between two codes may take the other one. Does not know which pages are sealed.
"""

from __future__ import annotations

import triton
import triton.language as tl

from folio_kernels import key_guide
from folio_kernels.page_blocks import load_block, store_block
from folio_kernels.quantise import FP16_MAX, ROUNDING, asymmetric_range, codes_of, reciprocal, saturated_fp16

MOST_STEPS = tl.constexpr(key_guide.MOST_STEPS)
LEAST_EXPONENT = tl.constexpr(key_guide.LEAST_EXPONENT)
EQUAL_SHARE = tl.constexpr(key_guide.EQUAL_SHARE)
LEAST_VARIED = tl.constexpr(key_guide.LEAST_VARIED)
LEAST_SCALE = tl.constexpr(key_guide.SCALE_BOUNDS[0])
MOST_SCALE = tl.constexpr(key_guide.SCALE_BOUNDS[1])
ROUNDING_BITS = tl.constexpr(0x4B400000)
"""The bits of `ROUNDING`; above them lies the integer that was rounded to."""


@triton.jit
def attention_weights(p_keys, p_guide, PRODUCT_SCALE: tl.constexpr, D: tl.constexpr, PAGE: tl.constexpr):
    """How much each token of a page matters to the mean query: a power of two, and an equal share for all."""
    b_mean = tl.load(p_guide + tl.arange(0, D))
    b_products = tl.sum(load_block(p_keys, 0, PAGE, 0, D, D).to(tl.float32) * b_mean[None, :], 1) * PRODUCT_SCALE
    b_exponents = tl.maximum(b_products - tl.max(b_products, 0), LEAST_EXPONENT) + ROUNDING
    b_biased = b_exponents.to(tl.int32, bitcast=True) - ROUNDING_BITS + 127
    b_weights = (b_biased << 23).to(tl.float32, bitcast=True)
    return b_weights + EQUAL_SHARE * tl.sum(b_weights, 0)


@triton.jit
def fitted_range(b_x, b_scale, b_zero, b_weights, LEVELS: tl.constexpr):
    """Scale and zero, fp16, that lose least of what is read of keys `[tokens, dims]`, from those of their range."""
    b_above = b_x - b_zero.to(tl.float32)[None, :]
    b_code = codes_of(b_above, reciprocal(b_scale)[None, :], 0.0, LEVELS).to(tl.float32)
    b_weighted = b_weights[:, None] * b_code
    total = tl.sum(b_weights, 0)
    b_code_sum, b_above_sum = tl.sum(b_weighted, 0), tl.sum(b_weights[:, None] * b_above, 0)
    b_square, b_product = tl.sum(b_weighted * b_code, 0), tl.sum(b_weighted * b_above, 0)
    b_variance = b_square - b_code_sum * b_code_sum / total
    is_varying = b_variance > LEAST_VARIED * b_square
    b_slope = tl.div_rn(b_product - b_code_sum * b_above_sum / total, tl.where(is_varying, b_variance, 1.0))
    b_slope = tl.maximum(b_slope, LEAST_SCALE * b_scale.to(tl.float32))
    b_fitted = saturated_fp16(tl.minimum(b_slope, MOST_SCALE * b_scale.to(tl.float32)))
    b_fitted_zero = b_zero.to(tl.float32) + (b_above_sum - b_fitted.to(tl.float32) * b_code_sum) / total
    fits = is_varying & (tl.abs(b_fitted_zero) <= FP16_MAX)
    return tl.where(fits, b_fitted, b_scale), tl.where(fits, saturated_fp16(b_fitted_zero), b_zero)


@triton.jit
def seal_guided_keys(
    p_keys,
    p_codes,
    p_scale,
    p_zero,
    p_guide,
    RATIOS: tl.constexpr,
    STAGES: tl.constexpr,
    PRODUCT_SCALE: tl.constexpr,
    D: tl.constexpr,
    PAGE: tl.constexpr,
):
    """A page's keys at 4 bits, rounded in stages by what is owed to their products with the mean query.

    A stage is a few dims of all tokens, so that a token's dims lie in few threads. Every two stages share bytes.
    """
    WIDTH: tl.constexpr = D // STAGES
    HALF: tl.constexpr = D // 2
    LEVELS: tl.constexpr = 15.0
    b_weights = attention_weights(p_keys, p_guide, PRODUCT_SCALE, D, PAGE)
    b_owed = tl.zeros((PAGE,), tl.float32)
    for pair in tl.static_range(1, STAGES // 2 + 1):
        b_bytes = tl.zeros((PAGE, WIDTH), tl.int32)
        for share in tl.static_range(1, -1, -1):
            o_dim = (share + 1) * HALF - pair * WIDTH + tl.arange(0, WIDTH)
            b_raw = load_block(p_keys, 0, PAGE, (share + 1) * HALF - pair * WIDTH, WIDTH, D)
            b_low, b_high, b_x = tl.min(b_raw, 0), tl.max(b_raw, 0), b_raw.to(tl.float32)
            b_scale, b_zero = asymmetric_range((b_raw,), b_low.to(tl.float32), b_high.to(tl.float32), 0, LEVELS, RATIOS)
            b_scale, b_zero = fitted_range(b_x, b_scale, b_zero, b_weights, LEVELS)
            tl.store(p_scale + o_dim, b_scale)
            tl.store(p_zero + o_dim, b_zero)
            b_above, b_reciprocal = b_x - b_zero.to(tl.float32)[None, :], reciprocal(b_scale)
            b_moved = b_owed[:, None] * (tl.load(p_guide + D + o_dim) * b_reciprocal)[None, :]
            b_moved = tl.minimum(tl.maximum(b_moved, -MOST_STEPS), MOST_STEPS)
            b_code = codes_of(b_above * b_reciprocal[None, :] - b_moved, 1.0, 0.0, LEVELS)
            b_lost = b_code.to(tl.float32) * b_scale.to(tl.float32)[None, :] - b_above
            b_owed += tl.sum(b_lost * tl.load(p_guide + o_dim)[None, :], 1)
            b_bytes |= b_code << (share * 4)
        store_block(p_codes, b_bytes.to(tl.uint8), 0, HALF - pair * WIDTH, HALF)
