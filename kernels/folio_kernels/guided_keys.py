"""Encoding 4-bit keys by a guide, within the sealing kernel: `key_guide` in the Triton language.

Sums over tokens and dims are taken in another order than there: a scale or a zero may be the next fp16 number, and a
key that lies half-way between two codes may take the other one. Does not know which pages are sealed.
"""

from __future__ import annotations

import triton
import triton.language as tl

from folio_kernels import key_guide
from folio_kernels.page_blocks import channel_blocks, load_block, store_block
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
def fitted_range(b_blocks, p_weights, b_scale, b_zero, LEVELS: tl.constexpr):
    """Scale and zero, fp16, that lose least of what is read of keys, from those of their range.

    `b_blocks` is a tuple of blocks of tokens that lie one below the other, the weights are in memory.
    """
    ROWS: tl.constexpr = b_blocks[0].shape[0]
    b_reciprocal, b_low = reciprocal(b_scale)[None, :], b_zero.to(tl.float32)[None, :]
    b_code_sums = tl.zeros(b_blocks[0].shape, tl.float32)
    b_above_sums, b_squares, b_products, b_totals = b_code_sums, b_code_sums, b_code_sums, b_code_sums
    for block in tl.static_range(len(b_blocks)):
        b_weights = tl.load(p_weights + block * ROWS + tl.arange(0, ROWS))[:, None]
        b_above = b_blocks[block].to(tl.float32) - b_low
        b_code = codes_of(b_above, b_reciprocal, 0.0, LEVELS).to(tl.float32)
        b_weighted = b_weights * b_code
        b_totals += b_weights
        b_code_sums, b_above_sums = b_code_sums + b_weighted, tl.fma(b_weights, b_above, b_above_sums)
        b_squares, b_products = tl.fma(b_weighted, b_code, b_squares), tl.fma(b_weighted, b_above, b_products)
    b_total, b_code_sum, b_above_sum = tl.sum(b_totals, 0), tl.sum(b_code_sums, 0), tl.sum(b_above_sums, 0)
    b_square, b_product = tl.sum(b_squares, 0), tl.sum(b_products, 0)
    b_variance = b_square - b_code_sum * b_code_sum / b_total
    is_varying = b_variance > LEAST_VARIED * b_square
    b_slope = tl.div_rn(b_product - b_code_sum * b_above_sum / b_total, tl.where(is_varying, b_variance, 1.0))
    b_slope = tl.maximum(b_slope, LEAST_SCALE * b_scale.to(tl.float32))
    b_fitted = saturated_fp16(tl.minimum(b_slope, MOST_SCALE * b_scale.to(tl.float32)))
    b_fitted_zero = b_zero.to(tl.float32) + (b_above_sum - b_fitted.to(tl.float32) * b_code_sum) / b_total
    fits = is_varying & (tl.abs(b_fitted_zero) <= FP16_MAX)
    return tl.where(fits, b_fitted, b_scale), tl.where(fits, saturated_fp16(b_fitted_zero), b_zero)


@triton.jit
def store_fitted_ranges(
    p_keys,
    p_weights,
    p_scale,
    p_zero,
    RATIOS: tl.constexpr,
    LEVELS: tl.constexpr,
    ROWS: tl.constexpr,
    D: tl.constexpr,
    PAGE: tl.constexpr,
):
    """Scales and zeros of a page's channels."""
    HALF: tl.constexpr = D // 2
    for half in tl.static_range(2):
        b_blocks, b_low, b_high = channel_blocks(p_keys, ROWS, half * HALF, HALF, D, PAGE)
        b_scale, b_zero = asymmetric_range(b_blocks, b_low, b_high, 0, LEVELS, RATIOS)
        b_scale, b_zero = fitted_range(b_blocks, p_weights, b_scale, b_zero, LEVELS)
        o_channel = half * HALF + tl.arange(0, HALF)
        tl.store(p_scale + o_channel, b_scale)
        tl.store(p_zero + o_channel, b_zero)


@triton.jit
def store_guided_codes(
    p_keys,
    p_codes,
    p_scale,
    p_zero,
    p_guide,
    LEVELS: tl.constexpr,
    STAGES: tl.constexpr,
    D: tl.constexpr,
    PAGE: tl.constexpr,
):
    """Codes, rounded in stages by what is owed to the keys' products with the mean query.

    A stage is a few dims of all tokens, so that a token's dims lie in few threads. Every two stages share bytes.
    """
    WIDTH: tl.constexpr = D // STAGES
    HALF: tl.constexpr = D // 2
    b_owed = tl.zeros((PAGE, 1), tl.float32)
    for pair in tl.static_range(1, STAGES // 2 + 1):
        b_bytes = tl.zeros((PAGE, WIDTH), tl.int32)
        for share in tl.static_range(1, -1, -1):
            o_dim = ((share + 1) * HALF - pair * WIDTH + tl.arange(0, WIDTH))[None, :]
            b_x = load_block(p_keys, 0, PAGE, (share + 1) * HALF - pair * WIDTH, WIDTH, D).to(tl.float32)
            b_scale, b_zero = tl.load(p_scale + o_dim), tl.load(p_zero + o_dim).to(tl.float32)
            b_above, b_reciprocal = b_x - b_zero, reciprocal(b_scale)
            b_moved = b_owed * (tl.load(p_guide + D + o_dim) * b_reciprocal)
            b_moved = tl.minimum(tl.maximum(b_moved, -MOST_STEPS), MOST_STEPS)
            b_code = codes_of(b_above * b_reciprocal - b_moved, 1.0, 0.0, LEVELS)
            b_lost = b_code.to(tl.float32) * b_scale.to(tl.float32) - b_above
            b_owed += tl.sum(b_lost * tl.load(p_guide + o_dim), 1)[:, None]
            b_bytes |= b_code << (share * 4)
        store_block(p_codes, b_bytes.to(tl.uint8), 0, HALF - pair * WIDTH, HALF)


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
    ROWS: tl.constexpr,
    D: tl.constexpr,
    PAGE: tl.constexpr,
):
    """A page's keys at 4 bits.

    Ranges are sought by threads that hold channels, codes by threads that hold tokens. What the ones have found the
    others read from memory, the weights from where the codes will be.
    """
    LEVELS: tl.constexpr = 15.0
    p_weights = p_codes.to(tl.pointer_type(tl.float32))
    tl.store(p_weights + tl.arange(0, PAGE), attention_weights(p_keys, p_guide, PRODUCT_SCALE, D, PAGE))
    tl.debug_barrier()
    store_fitted_ranges(p_keys, p_weights, p_scale, p_zero, RATIOS, LEVELS, ROWS, D, PAGE)
    tl.debug_barrier()
    store_guided_codes(p_keys, p_codes, p_scale, p_zero, p_guide, LEVELS, STAGES, D, PAGE)
