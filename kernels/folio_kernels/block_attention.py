"""Attention of a block of queries over one page, and what a block keeps while it goes from page to page.

Queries are on the tensor cores' long side. Queries and outputs are tuples of parts of the dims (`dims_of_part`), one
product each. Does not know which pages a block reads.
"""

from __future__ import annotations

import triton
import triton.language as tl

from folio_kernels.dequantise import dims_of_part, load_numbers, num_stretches

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
def no_output(ROWS: tl.constexpr, D: tl.constexpr, PARTS: tl.constexpr):
    """A block's outputs before the first page: zeros `[queries, D / PARTS]` for each part of the values' dims."""
    b_output = ()
    for _part in tl.static_range(PARTS):
        b_output += (tl.zeros((ROWS, D // PARTS), tl.float32),)
    return b_output


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
    KEY_BITS: tl.constexpr,
    VALUE_BITS: tl.constexpr,
    D: tl.constexpr,
    PAGE: tl.constexpr,
    PARTS: tl.constexpr,
):
    """Takes some tokens of a raw page, the first of which is `first`, into the running softmax.

    `is_read` `[queries, tokens]` says which query reads which token; tokens from `num_tokens` on hold nothing.
    """
    o_token = first + tl.arange(0, is_read.shape[1])
    is_token = o_token < num_tokens
    p_tokens = p_page + o_token[:, None] * D
    b_scores = tl.zeros(is_read.shape, tl.float32)
    for part in tl.static_range(PARTS):
        p_keys = p_tokens + dims_of_part(part, KEY_BITS, D, PARTS)[None, :]
        b_keys = tl.load(p_keys, mask=is_token[:, None], other=0.0)
        b_scores = tl.dot(b_query[part], tl.trans(b_keys), b_scores, input_precision="ieee")
    b_scores = tl.where(is_read, b_scores, float("-inf"))
    b_weights, b_decay, b_max, b_sum = softmax_step(b_scores, b_factor, b_max, b_sum)
    b_next = ()
    for part in tl.static_range(PARTS):
        p_values = p_tokens + PAGE * D + dims_of_part(part, VALUE_BITS, D, PARTS)[None, :]
        b_values = tl.load(p_values, mask=is_token[:, None], other=0.0)
        b_decayed = b_output[part] * b_decay[:, None]
        b_next += (tl.dot(b_weights.to(b_values.dtype), b_values, b_decayed, input_precision="ieee"),)
    return b_max, b_sum, b_next


@triton.jit
def load_query_rows(p_rows, is_query, BITS: tl.constexpr, D: tl.constexpr, PARTS: tl.constexpr):
    """A block's queries as they are: `[queries, D / PARTS]` for each part of the keys' dims."""
    b_query = ()
    for part in tl.static_range(PARTS):
        p_dims = p_rows[:, None] + dims_of_part(part, BITS, D, PARTS)[None, :]
        b_query += (tl.load(p_dims, mask=is_query[:, None], other=0.0),)
    return b_query


@triton.jit
def row_norm(b_parts):
    """A power of two no smaller than the largest entry of each row of all parts: `[rows]` float32."""
    b_largest = tl.max(tl.abs(b_parts[0].to(tl.float32)), 1)
    for part in tl.static_range(1, len(b_parts)):
        b_largest = tl.maximum(b_largest, tl.max(tl.abs(b_parts[part].to(tl.float32)), 1))
    return power_above(b_largest)


@triton.jit
def scaled(b_parts, b_factor, DTYPE: tl.constexpr):
    """Each part times a factor, in some dtype."""
    b_scaled = ()
    for part in tl.static_range(len(b_parts)):
        b_scaled += ((b_parts[part].to(tl.float32) * b_factor).to(DTYPE),)
    return b_scaled


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
    PARTS: tl.constexpr,
):
    """Takes a sealed page, which every query reads whole, into the running softmax, its values times `HALF`."""
    p_scale, p_zero = p_record + KEY_SCALE, p_record + KEY_ZERO
    b_scores = tl.zeros((b_factor.shape[0], PAGE), tl.float32)
    for stretch in tl.static_range(num_stretches(KEY_BITS, D, PARTS)):
        b_keys = load_numbers(p_record, p_scale, p_zero, KEY_BITS, False, D, PAGE, stretch, PARTS)
        for i in tl.static_range(len(b_keys)):
            b_scores = tl.dot(b_query[stretch * len(b_keys) + i], tl.trans(b_keys[i]), b_scores)
    b_weights, b_decay, b_max, b_sum = softmax_step(b_scores, b_factor, b_max, b_sum)
    p_codes, p_scale, p_zero = p_record + VALUE_CODES, p_record + VALUE_SCALE, p_record + VALUE_ZERO
    b_next = ()
    for stretch in tl.static_range(num_stretches(VALUE_BITS, D, PARTS)):
        b_values = load_numbers(p_codes, p_scale, p_zero, VALUE_BITS, True, D, PAGE, stretch, PARTS)
        for i in tl.static_range(len(b_values)):
            b_decayed = b_output[stretch * len(b_values) + i] * b_decay[:, None]
            b_next += (tl.dot(b_weights.to(tl.float16), b_values[i], b_decayed),)
    return b_max, b_sum, b_next


@triton.jit
def store_block(p_output, is_query, b_means, p_rotation, BITS: tl.constexpr, D: tl.constexpr, PARTS: tl.constexpr):
    """Stores a block's outputs, turned back where values are rotated; `p_output` points at each query's first dim."""
    if p_rotation is None:
        for part in tl.static_range(PARTS):
            p_dims = p_output[:, None] + dims_of_part(part, BITS, D, PARTS)[None, :]
            tl.store(p_dims, b_means[part].to(p_output.dtype.element_ty), mask=is_query[:, None])
    else:
        # Two fp16 numbers hold 22 bits of each mean, and the rotation's entries are all plus or minus one, but for the
        # factor that comes last: these products are exact.
        b_norm = row_norm(b_means)
        b_upper, b_lower = (), ()
        for part in tl.static_range(PARTS):
            b_part = b_means[part] / b_norm[:, None]
            b_upper += (b_part.to(tl.float16),)
            b_lower += (((b_part - b_upper[part].to(tl.float32)) * LOWER_UNIT).to(tl.float16),)
        for strip in tl.range(0, D, DIMS):
            o_strip = strip + tl.arange(0, DIMS)
            b_turned = tl.zeros((b_norm.shape[0], DIMS), tl.float32)
            b_rest = tl.zeros((b_norm.shape[0], DIMS), tl.float32)
            for part in tl.static_range(PARTS):
                o_dim = dims_of_part(part, BITS, D, PARTS)
                b_rotation = tl.load(p_rotation + o_dim[:, None] * D + o_strip[None, :])
                b_signs = tl.where(b_rotation > 0, 1.0, -1.0).to(tl.float16)
                b_turned = tl.dot(b_upper[part], b_signs, b_turned)
                b_rest = tl.dot(b_lower[part], b_signs, b_rest)
            b_turned = (b_turned + b_rest / LOWER_UNIT) * (b_norm * D**-0.5)[:, None]
            p_dims = p_output[:, None] + o_strip[None, :]
            tl.store(p_dims, b_turned.to(p_output.dtype.element_ty), mask=is_query[:, None])
