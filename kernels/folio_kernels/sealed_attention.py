"""Attention of one KV head's queries over compressed pages: what decode attention does most of its time.

Keys lie on the tensor cores' long side and the queries that share a KV head on the short one. Codes are multiplied as
they are unpacked (`unpack`): a key's scale goes into the queries once a page, a value's into the softmax weights, zeros
and biases into sums beside. Queries are divided by a power of two that makes them at most 1, so that fp16 holds them
whatever the model's dtype, and scores are counted in powers of two.

Knows one stretch of pages; how they are split among programs is `decode_attention`'s.
"""

from __future__ import annotations

import triton
import triton.language as tl

from folio_kernels.raw_attention import LOWEST
from folio_kernels.unpack import CODE_UNIT, SIGN_BIAS, unpack_halves, unpack_streams

MMA_ROWS = tl.constexpr(16)
"""The long side of the tensor cores' products, at least."""


@triton.constexpr_function
def weight_unit(value_bits: int) -> float:
    """What softmax weights times a value's scale are counted in, so that small ones keep more bits in fp16.

    The largest scales, those of values of +-65504, still fit: 516 at 8 bits, 8,734 at 4 and 43,669 at 2.
    """
    return {8: 2.0**-6, 4: 2.0**-2, 2: 1.0}[value_bits]


@triton.constexpr_function
def middle_code(value_bits: int) -> float:
    """The middle of a value's codes, as they are unpacked."""
    return 128.0 if value_bits == 8 else (2.0**value_bits - 1) / 2


@triton.jit
def load_query_streams(p_query, is_head, head_stride, b_norm, BITS: tl.constexpr, D: tl.constexpr):
    """The group's queries `[words, group]`, one block a stream of the keys, fp16 and at most 1 in size."""
    o_word = tl.arange(0, D * BITS // 16)
    o_head = tl.arange(0, is_head.shape[0])
    b_streams = ()
    for stream in tl.static_range(16 // BITS):
        o_dim = 2 * o_word + stream % 2 + stream // 2 * (D * BITS // 8)
        p_dims = p_query + o_head[None, :] * head_stride + o_dim[:, None]
        b_query = tl.load(p_dims, mask=is_head[None, :], other=0.0).to(tl.float32)
        b_streams += ((b_query / b_norm[None, :]).to(tl.float16),)
    return b_streams


@triton.jit
def query_norm(p_query, is_head, head_stride, D: tl.constexpr):
    """A power of two no smaller than each query's largest entry: `[group]` float32."""
    o_dim, o_head = tl.arange(0, D), tl.arange(0, is_head.shape[0])
    p_dims = p_query + o_head[None, :] * head_stride + o_dim[:, None]
    b_largest = tl.max(tl.abs(tl.load(p_dims, mask=is_head[None, :], other=0.0).to(tl.float32)), 0)
    return tl.exp2(tl.ceil(tl.log2(tl.maximum(b_largest, 1e-30))))


@triton.jit
def placed_for_products(b_streams, BITS: tl.constexpr):
    """The same numbers, weighted by where in a word each stream lies.

    A product with the identity: the compiler then keeps them where a product's results lie, from where scaling them
    page by page costs a third of the instructions.
    """
    o_word = tl.arange(0, b_streams[0].shape[0])
    b_identity = (o_word[:, None] == o_word[None, :]).to(tl.float16)
    b_placed = ()
    for stream in tl.static_range(16 // BITS):
        b_same = tl.dot(b_identity, b_streams[stream]) * 2.0 ** (-BITS * (stream // 2))
        b_placed += (b_same.to(tl.float16),)
    return b_placed


@triton.jit
def load_channels(p_channels, BITS: tl.constexpr, D: tl.constexpr):
    """One fp16 number per dim, `[words]` for each stream of the keys."""
    o_word = tl.arange(0, D * BITS // 16)
    b_streams = ()
    for part in tl.static_range(8 // BITS):
        p_pairs = p_channels.to(tl.pointer_type(tl.int32)) + part * (D * BITS // 16) + o_word
        b_streams += unpack_halves(tl.load(p_pairs))
    return b_streams


@triton.jit
def sealed_scores(
    p_record,
    b_query,
    b_placed,
    BITS: tl.constexpr,
    SCALE: tl.constexpr,
    ZERO: tl.constexpr,
    D: tl.constexpr,
    PAGE: tl.constexpr,
):
    """Scores `[tokens, group]` of a sealed page in units of `CODE_UNIT`."""
    WORDS: tl.constexpr = D * BITS // 16
    o_token, o_word = tl.arange(0, PAGE), tl.arange(0, WORDS)
    p_words = p_record.to(tl.pointer_type(tl.int16)) + o_token[:, None] * WORDS + o_word[None, :]
    b_codes = unpack_streams(tl.load(p_words), BITS)
    b_scale = load_channels(p_record + SCALE, BITS, D)
    b_scaled = ()
    for stream in tl.static_range(16 // BITS):
        b_scaled += (b_placed[stream] * b_scale[stream][:, None],)
    b_scores = tl.zeros((PAGE, b_query[0].shape[1]), tl.float32)
    if BITS == 8:
        for stream in tl.static_range(16 // BITS):
            b_bias = tl.full((PAGE, WORDS), -SIGN_BIAS * CODE_UNIT, tl.float16)
            b_scores = tl.dot(b_bias, b_scaled[stream], b_scores)
    else:
        b_zero = load_channels(p_record + ZERO, BITS, D)
        for stream in tl.static_range(16 // BITS):
            b_bias = tl.broadcast_to(b_zero[stream][None, :], PAGE, WORDS)
            b_scores = tl.dot(b_bias, b_query[stream], b_scores)
        b_scores = b_scores * CODE_UNIT
    for stream in tl.static_range(16 // BITS):
        b_scores = tl.dot(b_codes[stream], b_scaled[stream], b_scores)
    return b_scores


@triton.jit
def attend_sealed_pages(
    p_query,
    p_sealed,
    p_table,
    p_output,
    p_lse,
    is_head,
    first,
    last,
    head_stride,
    page_bytes,
    scale,
    D: tl.constexpr,
    PAGE: tl.constexpr,
    KEY_BITS: tl.constexpr,
    VALUE_BITS: tl.constexpr,
    KEY_SCALE: tl.constexpr,
    KEY_ZERO: tl.constexpr,
    VALUE_CODES: tl.constexpr,
    VALUE_SCALE: tl.constexpr,
    VALUE_ZERO: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    """The pages `first : last` of a table, all of them sealed, for one KV head of one sequence.

    `p_output` gets `[group, D]` float32, softmax's mean over these pages; `p_lse` the logarithm to base 2 of the sum.
    """
    BLOCK: tl.constexpr = is_head.shape[0]
    WORDS: tl.constexpr = D * VALUE_BITS // 16
    STREAMS: tl.constexpr = 16 // VALUE_BITS
    UNIT: tl.constexpr = weight_unit(VALUE_BITS)
    # Codes are taken around their middle: what rounding the weights does to a value's larger, constant part would be
    # the same in all dims, and the rotation would gather it in one. The sum is of the weights as the products see them.
    MIDDLE: tl.constexpr = middle_code(VALUE_BITS)
    b_ones = tl.full((MMA_ROWS, PAGE), 1.0, tl.float16)
    o_token, o_word, o_head = tl.arange(0, PAGE), tl.arange(0, WORDS), tl.arange(0, BLOCK)
    b_norm = query_norm(p_query, is_head, head_stride, D)
    b_query = load_query_streams(p_query, is_head, head_stride, b_norm, KEY_BITS, D)
    b_placed = placed_for_products(b_query, KEY_BITS)
    b_factor = b_norm * (scale / CODE_UNIT)
    b_max = tl.full((BLOCK,), LOWEST, tl.float32)
    b_sum = tl.zeros((PAGE, BLOCK), tl.float32)
    b_shift = tl.zeros((PAGE, BLOCK), tl.float32)
    b_weight_sum = tl.zeros((MMA_ROWS, BLOCK), tl.float32)
    b_output = (tl.zeros((WORDS, BLOCK), tl.float32),) * STREAMS
    page = tl.load(p_table + first)
    for i_page in tl.range(first, last, num_stages=NUM_STAGES):
        p_record = p_sealed + page.to(tl.int64) * page_bytes
        # One page ahead: its loads begin before this one's products, and wait for no table.
        page = tl.load(p_table + i_page + 1, mask=i_page + 1 < last, other=0)
        b_scores = sealed_scores(p_record, b_query, b_placed, KEY_BITS, KEY_SCALE, KEY_ZERO, D, PAGE)
        p_words = (p_record + VALUE_CODES).to(tl.pointer_type(tl.int16)) + o_token[None, :] * WORDS + o_word[:, None]
        b_codes = unpack_streams(tl.load(p_words), VALUE_BITS)
        b_scale = tl.load((p_record + VALUE_SCALE).to(tl.pointer_type(tl.float16)) + o_token).to(tl.float32)
        b_before = b_max
        b_max = tl.maximum(b_before, tl.max(b_scores, 0) * b_factor)
        b_decay = tl.exp2(b_before - b_max)
        b_share = tl.exp2(b_scores * b_factor[None, :] - b_max[None, :])
        b_weights = (b_share * (b_scale / UNIT)[:, None]).to(tl.float16)
        b_weight_sum = tl.dot(b_ones, b_weights, b_weight_sum * b_decay[None, :])
        b_sum = b_sum * b_decay[None, :] + b_share
        if VALUE_BITS < 8:
            b_zero = tl.load((p_record + VALUE_ZERO).to(tl.pointer_type(tl.float16)) + o_token).to(tl.float32)
            b_shift = b_shift * b_decay[None, :] + b_share * (b_zero + MIDDLE * b_scale)[:, None]
        b_next = ()
        for stream in tl.static_range(STREAMS):
            b_next += (tl.dot(b_codes[stream], b_weights, b_output[stream] * b_decay[None, :]),)
        b_output = b_next
    b_total = tl.sum(b_sum, 0)
    b_shift_total = tl.sum(b_shift, 0) - tl.max(b_weight_sum, 0) * (MIDDLE * UNIT)
    for stream in tl.static_range(STREAMS):
        o_dim = 2 * o_word + stream % 2 + stream // 2 * (D * VALUE_BITS // 8)
        b_codes_sum = b_output[stream] * (2.0 ** (-VALUE_BITS * (stream // 2)) * UNIT / CODE_UNIT)
        b_mean = (b_codes_sum + b_shift_total[None, :]) / b_total[None, :]
        tl.store(p_output + o_head[None, :] * D + o_dim[:, None], b_mean, mask=is_head[None, :])
    tl.store(p_lse + o_head, b_max + tl.log2(b_total), mask=is_head)
