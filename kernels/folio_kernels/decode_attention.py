"""Attention of one new token per sequence: unpacking and split-KV attention in one launch, merging in a second.

One program of a single warp reads one stretch of a sequence's pages for one KV head and all query heads that share it,
page after page, and stores what softmax and sum would be if there were no other pages. Keys lie on the tensor cores'
long side and the group's queries on the short one. Scores are counted in powers of two.

Where the codec compresses, one more program per sequence and KV head reads the raw pages: the sinks and the open page.
Grids depend on shapes alone, lengths and page tables are read on the device: a CUDA graph captures a step. Does not know
why a page is raw or sealed.
"""

from __future__ import annotations

import triton
import triton.language as tl

from folio_kernels.pool import RAW, SEALED
from folio_kernels.unpack import CODE_UNIT, SIGN_BIAS, unpack_halves, unpack_streams

RAW_KIND = tl.constexpr(RAW)
SEALED_KIND = tl.constexpr(SEALED)
LOWEST = tl.constexpr(-1e30)
"""Where a running maximum starts: below any score, and finite, so that a page without tokens leaves no NaN."""


@triton.jit
def load_query_streams(p_query, is_head, b_norm, BITS: tl.constexpr, D: tl.constexpr):
    """The group's queries `[words, group]`, one block a stream of the keys, fp16 and at most 1 in size."""
    o_word = tl.arange(0, D * BITS // 16)
    o_head = tl.arange(0, is_head.shape[0])
    b_streams = ()
    for stream in tl.static_range(16 // BITS):
        o_dim = 2 * o_word + stream % 2 + stream // 2 * (D * BITS // 8)
        b_query = tl.load(p_query + o_head[None, :] * D + o_dim[:, None], mask=is_head[None, :], other=0.0)
        b_streams = b_streams + ((b_query.to(tl.float32) / b_norm[None, :]).to(tl.float16),)
    return b_streams


@triton.jit
def placed_for_products(b_streams, BITS: tl.constexpr):
    """The same numbers, weighted by where in a word each stream lies.

    A product with the identity: the compiler then keeps them where a product's results lie, from where scaling them page
    by page costs a third of the instructions.
    """
    o_word = tl.arange(0, b_streams[0].shape[0])
    b_identity = (o_word[:, None] == o_word[None, :]).to(tl.float16)
    b_placed = ()
    for stream in tl.static_range(16 // BITS):
        b_same = tl.dot(b_identity, b_streams[stream]) * 2.0 ** (-BITS * (stream // 2))
        b_placed = b_placed + (b_same.to(tl.float16),)
    return b_placed


@triton.jit
def load_channels(p_channels, is_page, BITS: tl.constexpr, D: tl.constexpr):
    """One fp16 number per dim, `[words]` for each stream of the keys."""
    o_word = tl.arange(0, D * BITS // 16)
    b_streams = ()
    for part in tl.static_range(8 // BITS):
        p_pairs = p_channels.to(tl.pointer_type(tl.int32)) + part * (D * BITS // 16) + o_word
        b_lower, b_upper = unpack_halves(tl.load(p_pairs, mask=is_page, other=0))
        b_streams = b_streams + (b_lower, b_upper)
    return b_streams


@triton.jit
def sealed_scores(
    p_record, is_page, b_query, b_placed, BITS: tl.constexpr, SCALE: tl.constexpr, ZERO: tl.constexpr, D: tl.constexpr, PAGE: tl.constexpr
):
    """Scores `[tokens, group]` of a sealed page in units of `CODE_UNIT`; minus infinity where there is no page."""
    WORDS: tl.constexpr = D * BITS // 16
    o_token, o_word = tl.arange(0, PAGE), tl.arange(0, WORDS)
    p_words = p_record.to(tl.pointer_type(tl.int16)) + o_token[:, None] * WORDS + o_word[None, :]
    b_codes = unpack_streams(tl.load(p_words, mask=is_page, other=0), BITS)
    b_scale = load_channels(p_record + SCALE, is_page, BITS, D)
    b_scaled = ()
    for stream in tl.static_range(16 // BITS):
        b_scaled = b_scaled + (b_placed[stream] * b_scale[stream][:, None],)
    b_scores = tl.zeros((PAGE, b_query[0].shape[1]), tl.float32)
    if BITS == 8:
        for stream in tl.static_range(16 // BITS):
            b_bias = tl.full((PAGE, WORDS), -SIGN_BIAS * CODE_UNIT, tl.float16)
            b_scores = tl.dot(b_bias, b_scaled[stream], b_scores)
    else:
        b_zero = load_channels(p_record + ZERO, is_page, BITS, D)
        for stream in tl.static_range(16 // BITS):
            b_bias = tl.broadcast_to(b_zero[stream][None, :], PAGE, WORDS)
            b_scores = tl.dot(b_bias, b_query[stream], b_scores)
        b_scores = b_scores * CODE_UNIT
    b_scores = tl.where(is_page, b_scores, float("-inf"))
    for stream in tl.static_range(16 // BITS):
        b_scores = tl.dot(b_codes[stream], b_scaled[stream], b_scores)
    return b_scores


@triton.jit
def attend_sealed_pages(
    p_query,
    p_sealed,
    p_table,
    p_kinds,
    p_output,
    p_lse,
    first,
    last,
    page_bytes,
    scale,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
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
    """The sealed ones of the pages `first : last`, for one KV head of one sequence."""
    WORDS: tl.constexpr = D * VALUE_BITS // 16
    STREAMS: tl.constexpr = 16 // VALUE_BITS
    o_token, o_word, o_head, o_dim = tl.arange(0, PAGE), tl.arange(0, WORDS), tl.arange(0, BLOCK), tl.arange(0, D)
    is_head = o_head < GROUP
    b_whole = tl.load(p_query + o_head[None, :] * D + o_dim[:, None], mask=is_head[None, :], other=0.0)
    b_norm = tl.max(tl.abs(b_whole.to(tl.float32)), 0)
    b_norm = tl.where(b_norm == 0, 1.0, b_norm)
    b_query = load_query_streams(p_query, is_head, b_norm, KEY_BITS, D)
    b_placed = placed_for_products(b_query, KEY_BITS)
    b_factor = b_norm * (scale / CODE_UNIT)
    b_max = tl.full((BLOCK,), LOWEST, tl.float32)
    b_sum = tl.zeros((PAGE, BLOCK), tl.float32)
    b_shift = tl.zeros((PAGE, BLOCK), tl.float32)
    b_output = (tl.zeros((WORDS, BLOCK), tl.float32),) * STREAMS
    for i_page in tl.range(first, last, num_stages=NUM_STAGES):
        is_page = tl.load(p_kinds + i_page) == SEALED_KIND
        p_record = p_sealed + tl.load(p_table + i_page).to(tl.int64) * page_bytes
        b_scores = sealed_scores(p_record, is_page, b_query, b_placed, KEY_BITS, KEY_SCALE, KEY_ZERO, D, PAGE)
        p_words = (p_record + VALUE_CODES).to(tl.pointer_type(tl.int16)) + o_token[None, :] * WORDS + o_word[:, None]
        b_codes = unpack_streams(tl.load(p_words, mask=is_page, other=0), VALUE_BITS)
        p_scale = (p_record + VALUE_SCALE).to(tl.pointer_type(tl.float16)) + o_token
        b_scale = tl.load(p_scale, mask=is_page, other=0.0).to(tl.float32)
        b_before = b_max
        b_max = tl.maximum(b_before, tl.max(b_scores, 0) * b_factor)
        b_decay = tl.exp2(b_before - b_max)
        b_share = tl.exp2(b_scores * b_factor[None, :] - b_max[None, :])
        b_scaled = b_share * b_scale[:, None]
        b_sum = b_sum * b_decay[None, :] + b_share
        if VALUE_BITS == 8:
            b_shift = b_shift * b_decay[None, :] + b_scaled
        else:
            p_zero = (p_record + VALUE_ZERO).to(tl.pointer_type(tl.float16)) + o_token
            b_zero = tl.load(p_zero, mask=is_page, other=0.0).to(tl.float32)
            b_shift = b_shift * b_decay[None, :] + b_share * b_zero[:, None]
        b_weights = b_scaled.to(tl.float16)
        b_next = ()
        for stream in tl.static_range(STREAMS):
            b_next = b_next + (tl.dot(b_codes[stream], b_weights, b_output[stream] * b_decay[None, :]),)
        b_output = b_next
    b_total = tl.sum(b_sum, 0)
    b_shift_total = tl.sum(b_shift, 0) * (-SIGN_BIAS if VALUE_BITS == 8 else 1.0)
    b_inverse = 1.0 / tl.where(b_total == 0, 1.0, b_total)
    for stream in tl.static_range(STREAMS):
        o_dim = 2 * o_word + stream % 2 + stream // 2 * (D * VALUE_BITS // 8)
        b_codes_sum = b_output[stream] * (2.0 ** (-VALUE_BITS * (stream // 2)) / CODE_UNIT)
        b_result = (b_codes_sum + b_shift_total[None, :]) * b_inverse[None, :]
        tl.store(p_output + o_head[None, :] * D + o_dim[:, None], b_result, mask=is_head[None, :])
    tl.store(p_lse + o_head, b_max + tl.log2(b_total), mask=is_head)
