"""Attention of a block of queries over one page, and what a block keeps while it goes from page to page.

Codes are multiplied as they are unpacked (`unpack`), with the same folding of scales, zeros and biases as in
`sealed_attention`, but with queries on the tensor cores' long side. Outputs are kept as streams of the values' codes,
raw pages' values too, until they are stored. Does not know which pages a block reads.
"""

from __future__ import annotations

import triton
import triton.language as tl

from folio_kernels.sealed_attention import load_channels, middle_code, weight_unit
from folio_kernels.unpack import CODE_UNIT, SIGN_BIAS, unpack_streams

DIMS = tl.constexpr(32)
"""Dims that are turned back at once."""

MIN_COLUMNS = tl.constexpr(8)
"""The short side of the tensor cores' products."""


@triton.jit
def stream_dims(stream: tl.constexpr, BITS: tl.constexpr, D: tl.constexpr):
    """The dims of one stream of codes; of uncompressed numbers, the only stream is all of them."""
    if BITS > 8:
        o_dim = tl.arange(0, D)
    else:
        o_dim = 2 * tl.arange(0, D * BITS // 16) + stream % 2 + stream // 2 * (D * BITS // 8)
    return o_dim


@triton.constexpr_function
def stream_unit(stream: int, bits: int) -> float:
    """What a stream of the outputs is counted in while pages are summed."""
    return 1.0 if bits > 8 else weight_unit(bits) * 2.0 ** (24 - bits * (stream // 2))


@triton.jit
def softmax_step(b_scores, b_max, b_sum):
    """Takes scores, in powers of two, into a running softmax: shares, decay of what was, maximum and sum."""
    b_next = tl.maximum(b_max, tl.max(b_scores, 1))
    b_decay = tl.exp2(b_max - b_next)
    b_share = tl.exp2(b_scores - b_next[:, None])
    return b_share, b_decay, b_next, b_sum * b_decay + tl.sum(b_share, 1)


@triton.jit
def attend_raw_tokens(
    b_query,
    p_page,
    first,
    num_tokens,
    is_read,
    b_max,
    b_sum,
    b_shift,
    b_output,
    scale,
    VALUE_BITS: tl.constexpr,
    D: tl.constexpr,
    PAGE: tl.constexpr,
):
    """Takes some tokens of a raw page, the first of which is `first`, into the running softmax.

    `is_read` `[queries, tokens]` says which query reads which token; tokens from `num_tokens` on hold nothing.
    """
    o_token, o_dim = first + tl.arange(0, is_read.shape[1]), tl.arange(0, D)
    is_token = o_token < num_tokens
    b_keys = tl.load(p_page + o_token[None, :] * D + o_dim[:, None], mask=is_token[None, :], other=0.0)
    b_scores = tl.where(is_read, tl.dot(b_query, b_keys, input_precision="ieee") * scale, float("-inf"))
    b_share, b_decay, b_max, b_sum = softmax_step(b_scores, b_max, b_sum)
    b_next = ()
    for stream in tl.static_range(len(b_output)):
        o_stream = stream_dims(stream, VALUE_BITS, D)
        p_values = p_page + PAGE * D + o_token[:, None] * D + o_stream[None, :]
        b_values = tl.load(p_values, mask=is_token[:, None], other=0.0)
        b_added = tl.dot(b_share.to(b_values.dtype), b_values, input_precision="ieee")
        b_next += (b_output[stream] * b_decay[:, None] + b_added / stream_unit(stream, VALUE_BITS),)
    return b_max, b_sum, b_shift * b_decay, b_next


@triton.jit
def load_query_rows(p_query, is_query, b_norm, BITS: tl.constexpr, D: tl.constexpr):
    """A block's queries `[queries, words]`, one block a stream of the keys, weighted by where in a word each lies."""
    b_streams = ()
    for stream in tl.static_range(16 // BITS):
        o_dim = stream_dims(stream, BITS, D)
        b_rows = tl.load(p_query[:, None] + o_dim[None, :], mask=is_query[:, None], other=0.0).to(tl.float32)
        b_streams += ((b_rows / b_norm[:, None] * 2.0 ** (-BITS * (stream // 2))).to(tl.float16),)
    return b_streams


@triton.jit
def sealed_page_scores(
    p_record,
    b_query,
    BITS: tl.constexpr,
    SCALE: tl.constexpr,
    ZERO: tl.constexpr,
    D: tl.constexpr,
    PAGE: tl.constexpr,
):
    """Scores `[queries, tokens]` of a sealed page in units of `CODE_UNIT`."""
    WORDS: tl.constexpr = D * BITS // 16
    o_token, o_word = tl.arange(0, PAGE), tl.arange(0, WORDS)
    p_words = p_record.to(tl.pointer_type(tl.int16)) + o_token[None, :] * WORDS + o_word[:, None]
    b_codes = unpack_streams(tl.load(p_words), BITS)
    b_scale = load_channels(p_record + SCALE, BITS, D)
    b_zero = b_scale if BITS == 8 else load_channels(p_record + ZERO, BITS, D)
    b_scores = tl.zeros((b_query[0].shape[0], PAGE), tl.float32)
    b_bias = tl.zeros((b_query[0].shape[0], MIN_COLUMNS), tl.float32)
    for stream in tl.static_range(16 // BITS):
        b_scaled = b_query[stream] * b_scale[stream][None, :]
        b_scores = tl.dot(b_scaled, b_codes[stream], b_scores)
        if BITS == 8:
            b_bias = tl.dot(b_scaled, tl.full((WORDS, MIN_COLUMNS), -SIGN_BIAS * CODE_UNIT, tl.float16), b_bias)
        else:
            b_columns = tl.broadcast_to(b_zero[stream][:, None], WORDS, MIN_COLUMNS)
            b_product = tl.dot(b_query[stream], b_columns)
            b_bias += b_product * (CODE_UNIT * 2.0 ** (BITS * (stream // 2)))
    return b_scores + tl.max(b_bias, 1)[:, None]


@triton.jit
def attend_sealed_page(
    b_query,
    b_factor,
    p_record,
    b_max,
    b_sum,
    b_shift,
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
    """Takes a sealed page, which every query reads whole, into the running softmax."""
    WORDS: tl.constexpr = D * VALUE_BITS // 16
    UNIT: tl.constexpr = weight_unit(VALUE_BITS)
    MIDDLE: tl.constexpr = middle_code(VALUE_BITS)
    o_token, o_word = tl.arange(0, PAGE), tl.arange(0, WORDS)
    b_scores = sealed_page_scores(p_record, b_query, KEY_BITS, KEY_SCALE, KEY_ZERO, D, PAGE) * b_factor[:, None]
    b_share, b_decay, b_max, b_sum = softmax_step(b_scores, b_max, b_sum)
    p_words = (p_record + VALUE_CODES).to(tl.pointer_type(tl.int16)) + o_token[:, None] * WORDS + o_word[None, :]
    b_codes = unpack_streams(tl.load(p_words), VALUE_BITS)
    b_scale = tl.load((p_record + VALUE_SCALE).to(tl.pointer_type(tl.float16)) + o_token).to(tl.float32)
    b_weights = (b_share * (b_scale / UNIT)[None, :]).to(tl.float16)
    b_added = b_weights.to(tl.float32) * (-MIDDLE * UNIT)
    if VALUE_BITS < 8:
        b_zero = tl.load((p_record + VALUE_ZERO).to(tl.pointer_type(tl.float16)) + o_token).to(tl.float32)
        b_added += b_share * (b_zero + MIDDLE * b_scale)[None, :]
    b_next = ()
    for stream in tl.static_range(16 // VALUE_BITS):
        b_next += (tl.dot(b_weights, b_codes[stream], b_output[stream] * b_decay[:, None]),)
    return b_max, b_sum, b_shift * b_decay + tl.sum(b_added, 1), b_next


@triton.jit
def row_norm(p_query, is_query, D: tl.constexpr):
    """A power of two no smaller than each query's largest entry: `[queries]` float32."""
    b_rows = tl.load(p_query[:, None] + tl.arange(0, D)[None, :], mask=is_query[:, None], other=0.0).to(tl.float32)
    return tl.exp2(tl.ceil(tl.log2(tl.maximum(tl.max(tl.abs(b_rows), 1), 1e-30))))


@triton.jit
def store_block(p_output, is_query, b_sum, b_shift, b_output, p_rotation, VALUE_BITS: tl.constexpr, D: tl.constexpr):
    """Stores a block's outputs, turned back where values are rotated; `p_output` points at each query's first dim."""
    b_means = ()
    for stream in tl.static_range(len(b_output)):
        b_means += ((b_output[stream] * stream_unit(stream, VALUE_BITS) + b_shift[:, None]) / b_sum[:, None],)
    if p_rotation is None:
        for stream in tl.static_range(len(b_output)):
            p_dims = p_output[:, None] + stream_dims(stream, VALUE_BITS, D)[None, :]
            tl.store(p_dims, b_means[stream].to(p_output.dtype.element_ty), mask=is_query[:, None])
    else:
        for strip in tl.range(0, D, DIMS):
            o_strip = strip + tl.arange(0, DIMS)
            b_turned = tl.zeros((is_query.shape[0], DIMS), tl.float32)
            for stream in tl.static_range(len(b_output)):
                o_stream = stream_dims(stream, VALUE_BITS, D)
                b_rotation = tl.load(p_rotation + o_stream[:, None] * D + o_strip[None, :])
                b_turned = tl.dot(b_means[stream], b_rotation, b_turned, input_precision="tf32x3")
            p_dims = p_output[:, None] + o_strip[None, :]
            tl.store(p_dims, b_turned.to(p_output.dtype.element_ty), mask=is_query[:, None])
