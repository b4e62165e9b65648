"""Attention of a block of queries over one page, and what a block keeps while it goes from page to page.

Codes are multiplied as they are unpacked (`unpack_page`), with the same folding of scales, zeros and biases as in
`sealed_attention`, but with queries on the tensor cores' long side. Does not know which pages a block reads.
"""

from __future__ import annotations

import triton
import triton.language as tl

from folio_kernels.dequantise import load_numbers

DIMS = tl.constexpr(32)
"""Dims that are turned back at once."""

LOWER_UNIT = tl.constexpr(2.0**11)
"""What is rounded off an fp16 number is this much smaller."""

HEADROOM = tl.constexpr(15.0)
"""Weights are up to 2^15, in place of 1: small ones keep bits that fp16 has no room for. The sum is counted alike."""


@triton.jit
def block_rows(p_query_starts, p_lengths, i_sequence, i_block, ROWS: tl.constexpr, PAGE: tl.constexpr):
    """Of a block's rows `[queries]`, page after page, one a head: which new tokens they are, in the batch."""
    row = tl.load(p_query_starts + i_sequence, volatile=True)
    num_new = tl.load(p_query_starts + i_sequence + 1) - row
    num_before = tl.load(p_lengths + i_sequence) - num_new
    o_new = (num_before // PAGE + i_block) * PAGE + tl.arange(0, ROWS) % PAGE - num_before
    is_query = (o_new >= 0) & (o_new < num_new)
    return row + tl.where(is_query, o_new, 0), is_query


@triton.jit
def softmax_step(b_scores, b_factor, b_max, b_sum):
    """Takes scores times each query's factor into a running softmax: weights, decay of what was, maximum and sum."""
    b_next = tl.maximum(b_max, tl.max(b_scores, 1) * b_factor - HEADROOM)
    b_decay = tl.exp2(b_max - b_next)
    b_weights = tl.exp2(b_scores * b_factor[:, None] - b_next[:, None])
    return b_weights, b_decay, b_next, b_sum * b_decay + tl.sum(b_weights, 1)


@triton.jit
def attend_raw_tokens(
    b_query,
    b_factor,
    p_page,
    first,
    num_tokens,
    is_read,
    b_max,
    b_sum,
    b_output,
    D: tl.constexpr,
    PAGE: tl.constexpr,
):
    """Takes some tokens of a raw page, the first of which is `first`, into the running softmax.

    `is_read` `[queries, tokens]` says which query reads which token; tokens from `num_tokens` on hold nothing.
    """
    o_token, o_dim = first + tl.arange(0, is_read.shape[1]), tl.arange(0, D)
    is_token = o_token < num_tokens
    p_keys = p_page + o_token[:, None] * D + o_dim[None, :]
    b_keys = tl.load(p_keys, mask=is_token[:, None], other=0.0)
    b_scores = tl.dot(b_query, tl.trans(b_keys), input_precision="ieee")
    b_scores = tl.where(is_read, b_scores, float("-inf"))
    b_weights, b_decay, b_max, b_sum = softmax_step(b_scores, b_factor, b_max, b_sum)
    b_values = tl.load(p_keys + PAGE * D, mask=is_token[:, None], other=0.0)
    b_output = tl.dot(b_weights.to(b_values.dtype), b_values, b_output * b_decay[:, None], input_precision="ieee")
    return b_max, b_sum, b_output


@triton.jit
def load_query_rows(p_rows, is_query, b_norm, D: tl.constexpr):
    """A block's queries `[queries, D]`, fp16 and at most 1 in size."""
    b_rows = tl.load(p_rows[:, None] + tl.arange(0, D)[None, :], mask=is_query[:, None], other=0.0).to(tl.float32)
    return (b_rows / b_norm[:, None]).to(tl.float16)


@triton.jit
def row_norm(p_rows, is_query, D: tl.constexpr):
    """A power of two no smaller than each query's largest entry: `[queries]` float32."""
    b_rows = tl.load(p_rows[:, None] + tl.arange(0, D)[None, :], mask=is_query[:, None], other=0.0)
    return power_above(tl.max(tl.abs(b_rows.to(tl.float32)), 1))


@triton.jit
def power_above(b_largest):
    """Powers of two no smaller than positive numbers."""
    return tl.exp2(tl.ceil(tl.log2(tl.maximum(b_largest, 1e-30))))


@triton.jit
def attend_sealed_page(
    b_query,
    b_factor,
    p_record,
    b_max,
    b_sum,
    b_output,
    KEY_BITS: tl.constexpr,
    VALUE_BITS: tl.constexpr,
    KEY_SCALE: tl.constexpr,
    KEY_ZERO: tl.constexpr,
    VALUE_CODES: tl.constexpr,
    VALUE_SCALE: tl.constexpr,
    VALUE_ZERO: tl.constexpr,
    D: tl.constexpr,
    PAGE: tl.constexpr,
):
    """Takes a sealed page, which every query reads whole, into the running softmax, its values times `HALF`."""
    b_keys = load_numbers(p_record, p_record + KEY_SCALE, p_record + KEY_ZERO, KEY_BITS, False, D, PAGE)
    b_scores = tl.dot(b_query, tl.trans(b_keys))
    b_weights, b_decay, b_max, b_sum = softmax_step(b_scores, b_factor, b_max, b_sum)
    p_codes, p_scale, p_zero = p_record + VALUE_CODES, p_record + VALUE_SCALE, p_record + VALUE_ZERO
    b_values = load_numbers(p_codes, p_scale, p_zero, VALUE_BITS, True, D, PAGE)
    b_output = tl.dot(b_weights.to(tl.float16), b_values, b_output * b_decay[:, None])
    return b_max, b_sum, b_output


@triton.jit
def store_block(p_output, is_query, b_means, p_rotation, D: tl.constexpr):
    """Stores a block's outputs, turned back where values are rotated; `p_output` points at each query's first dim."""
    if p_rotation is None:
        p_dims = p_output[:, None] + tl.arange(0, D)[None, :]
        tl.store(p_dims, b_means.to(p_output.dtype.element_ty), mask=is_query[:, None])
    else:
        # Two fp16 numbers hold 22 bits of each mean, and the rotation's entries are all plus or minus one, but for the
        # factor that comes last: these products are exact.
        b_norm = power_above(tl.max(tl.abs(b_means), 1))
        b_means = b_means / b_norm[:, None]
        b_upper = b_means.to(tl.float16)
        b_lower = ((b_means - b_upper.to(tl.float32)) * LOWER_UNIT).to(tl.float16)
        for strip in tl.range(0, D, DIMS):
            o_dim, o_strip = tl.arange(0, D), strip + tl.arange(0, DIMS)
            b_rotation = tl.load(p_rotation + o_dim[:, None] * D + o_strip[None, :])
            b_signs = tl.where(b_rotation > 0, 1.0, -1.0).to(tl.float16)
            b_turned = tl.dot(b_upper, b_signs) + tl.dot(b_lower, b_signs) / LOWER_UNIT
            b_turned *= (b_norm * D**-0.5)[:, None]
            p_dims = p_output[:, None] + o_strip[None, :]
            tl.store(p_dims, b_turned.to(p_output.dtype.element_ty), mask=is_query[:, None])
