"""Attention of a chunk of new tokens by the page rule, for sequences with more than one of them.

A block of 64 queries is one page. It reads the pages before it as they are stored, those of its own chunk too, and its
own page raw and causal. One program serves one such block, of two query heads of a group where there are two: it walks
the sealed pages, then the raw ones, its own last. Grids depend on shapes alone. What happens on one page is
`block_attention`'s.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from folio_kernels.block_attention import (
    attend_raw_tokens,
    attend_sealed_page,
    block_rows,
    load_query_rows,
    no_output,
    row_norm,
    scaled,
    store_block,
)
from folio_kernels.decode_attention import layout_constants, page_arguments
from folio_kernels.dequantise import HALF
from folio_kernels.layout import PAGE_SIZE, PageLayout
from folio_kernels.pool import PagePool
from folio_kernels.raw_attention import LOWEST
from folio_kernels.step_tensors import StepTensors

HEADS_AT_ONCE = 2
"""Query heads of a group that share a page's numbers, where the group has an even number of them."""

WARPS_PER_HEAD = 4
"""A warp's products have 16 rows: each warp has queries of its own, and none waits for another one's softmax."""

WIDE_RAW_WARPS = 8
"""Of one head's program for raw pages of 256 dims: with outputs of 16 queries a warp these spill."""

TOKENS_AT_ONCE = {64: 64, 128: 32, 256: 16}
"""By head_dim: raw tokens that are held at once, as many as registers have room for."""

TOKEN_BYTES_AT_ONCE = 128
"""Of one dim: no more than 32 raw tokens of fp32 are held at once."""

NUM_STAGES = 2
"""What the compiler pipelines: one page is computed on while the next one is loaded."""


@triton.jit
def prefill_kernel(
    p_query,
    p_raw,
    p_sealed,
    p_query_starts,
    p_lengths,
    p_num_raw,
    p_tables,
    p_open_pages,
    p_rotation,
    p_output,
    query_token_stride,
    query_head_stride,
    table_stride,
    open_stride,
    layer,
    num_layers,
    scale,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    PAGE: tl.constexpr,
    KEY_BITS: tl.constexpr,
    VALUE_BITS: tl.constexpr,
    RECORD: tl.constexpr,
    KEY_SCALE: tl.constexpr,
    KEY_ZERO: tl.constexpr,
    VALUE_CODES: tl.constexpr,
    VALUE_SCALE: tl.constexpr,
    VALUE_ZERO: tl.constexpr,
    HEADS: tl.constexpr,
    TOKENS: tl.constexpr,
    PARTS: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    """One program per page that a sequence's new tokens lie in, per `HEADS` heads of a group, and per sequence.

    Pools are those of `decode_kernel`; `p_output` is `[tokens, KV_HEADS * GROUP, D]`.
    """
    i_block, i_heads, i_sequence = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    ROWS: tl.constexpr = HEADS * PAGE
    num_new = tl.load(p_query_starts + i_sequence + 1) - tl.load(p_query_starts + i_sequence)
    length = tl.load(p_lengths + i_sequence)
    i_own = (length - num_new) // PAGE + i_block
    if (num_new > 1) & (i_own * PAGE < length):
        o_token, o_head = tl.arange(0, ROWS) % PAGE, i_heads * HEADS + tl.arange(0, ROWS) // PAGE
        o_row, is_query = block_rows(p_query_starts, p_lengths, i_sequence, i_block, ROWS, PAGE)
        p_rows = p_query + o_row.to(tl.int64) * query_token_stride + o_head.to(tl.int64) * query_head_stride
        o_record = layer.to(tl.int64) * KV_HEADS + i_heads * HEADS // GROUP
        page_records = num_layers.to(tl.int64) * KV_HEADS
        p_heads = p_raw + o_record * (2 * PAGE * D)
        p_table = p_tables + i_sequence.to(tl.int64) * table_stride
        num_raw = tl.minimum(tl.load(p_num_raw + i_sequence), i_own)
        b_max, b_sum = tl.full((ROWS,), LOWEST, tl.float32), tl.zeros((ROWS,), tl.float32)
        b_output = no_output(ROWS, D, PARTS)
        b_factor = tl.zeros((ROWS,), tl.float32) + scale
        page = tl.load(p_table + num_raw, mask=num_raw < i_own, other=0)
        p_sealed, page_elements = p_sealed + o_record * RECORD, page_records * RECORD
        b_query = load_query_rows(p_rows, is_query, KEY_BITS, D, PARTS)
        if KEY_BITS > 8:
            b_query = scaled(b_query, 1.0, p_raw.dtype.element_ty)
            is_any = tl.full((ROWS, PAGE), 1, tl.int1)
            for i_page in tl.range(num_raw, i_own, num_stages=NUM_STAGES):
                p_page = p_sealed + page.to(tl.int64) * page_elements
                page = tl.load(p_table + i_page + 1, mask=i_page + 1 < i_own, other=0)
                b_max, b_sum, b_output = attend_raw_tokens(
                    b_query, b_factor, p_page, 0, PAGE, is_any,
                    b_max, b_sum, b_output, KEY_BITS, VALUE_BITS, D, PAGE, PARTS,
                )  # fmt: skip
        else:
            b_norm = row_norm(b_query)
            b_query, b_sealed_factor = scaled(b_query, 1 / b_norm[:, None], tl.float16), b_norm * (scale / HALF)
            for i_page in tl.range(num_raw, i_own, num_stages=NUM_STAGES):
                p_record = p_sealed + page.to(tl.int64) * page_elements
                # One page ahead: its loads begin before this one's products, and wait for no table.
                page = tl.load(p_table + i_page + 1, mask=i_page + 1 < i_own, other=0)
                b_max, b_sum, b_output = attend_sealed_page(
                    b_query, b_sealed_factor, p_record, b_max, b_sum, b_output,
                    KEY_BITS, VALUE_BITS, KEY_SCALE, KEY_ZERO, VALUE_CODES, VALUE_SCALE, VALUE_ZERO, D, PAGE, PARTS,
                )  # fmt: skip
            b_output = scaled(b_output, 1 / HALF, tl.float32)
            # Said again: held all the way, the rows take registers that the loops need.
            o_row, is_query = block_rows(p_query_starts, p_lengths, i_sequence, i_block, ROWS, PAGE)
            p_rows = p_query + o_row.to(tl.int64) * query_token_stride + o_head.to(tl.int64) * query_head_stride
            b_query = scaled(load_query_rows(p_rows, is_query, KEY_BITS, D, PARTS), 1.0, p_raw.dtype.element_ty)
        own_page = tl.load(p_open_pages + i_sequence.to(tl.int64) * open_stride + i_block)
        for start in tl.range(0, (num_raw + 1) * PAGE, TOKENS, num_stages=1):
            i_page, first = start // PAGE, start % PAGE
            page = tl.load(p_table + i_page, mask=i_page < num_raw, other=own_page)
            num_tokens = tl.where(i_page < num_raw, PAGE, length - i_own * PAGE)
            is_read = (first + tl.arange(0, TOKENS)[None, :] <= o_token[:, None]) | (i_page < num_raw)
            p_page = p_heads + page.to(tl.int64) * page_records * (2 * PAGE * D)
            b_max, b_sum, b_output = attend_raw_tokens(
                b_query, b_factor, p_page, first, num_tokens, is_read,
                b_max, b_sum, b_output, KEY_BITS, VALUE_BITS, D, PAGE, PARTS,
            )  # fmt: skip
        o_row, is_query = block_rows(p_query_starts, p_lengths, i_sequence, i_block, ROWS, PAGE)
        p_stored = p_output + (o_row.to(tl.int64) * (KV_HEADS * GROUP) + o_head) * D
        b_means = scaled(b_output, 1 / b_sum[:, None], tl.float32)
        store_block(p_stored, is_query, b_means, p_rotation, VALUE_BITS, D, PARTS)


def heads_at_once(layout: PageLayout, num_heads: int) -> int:
    """Query heads that one program serves."""
    return 1 if _is_wide_raw(layout) else math.gcd(HEADS_AT_ONCE, num_heads // layout.num_kv_heads)


def num_warps(layout: PageLayout, num_heads: int) -> int:
    """Warps of one program."""
    return WIDE_RAW_WARPS if _is_wide_raw(layout) else WARPS_PER_HEAD * heads_at_once(layout, num_heads)


def num_parts(layout: PageLayout, num_heads: int) -> int:
    """Parts of a head's dims whose products are taken one after the other.

    Where products have more columns than rows, the compiler shares out columns among warps instead of rows.
    """
    return 1 if _is_wide_raw(layout) else max(1, layout.head_dim // (heads_at_once(layout, num_heads) * PAGE_SIZE))


def _is_wide_raw(layout: PageLayout) -> bool:
    """Also of fp32: two heads' queries take more than an A100's shared memory."""
    return layout.head_dim > 128 and (layout.raw_dtype.itemsize > 2 or not layout.codec.compresses)


def prefill_constants(layout: PageLayout, num_heads: int) -> dict[str, int]:
    """What `prefill_kernel` is compiled for: a model's heads and a codec's layout."""
    return {
        **layout_constants(layout),
        "GROUP": num_heads // layout.num_kv_heads,
        "HEADS": heads_at_once(layout, num_heads),
        "PARTS": num_parts(layout, num_heads),
        "TOKENS": min(TOKENS_AT_ONCE[layout.head_dim], TOKEN_BYTES_AT_ONCE // layout.raw_dtype.itemsize),
        "NUM_STAGES": NUM_STAGES,
    }


def prefill_attention(
    pool: PagePool, layer: int, query: torch.Tensor, step: StepTensors, scale: float, output: torch.Tensor
) -> None:
    """Attention of every sequence with several new tokens; other sequences' rows of the output are left alone.

    Args:
        pool: the pages; this step's keys and values are appended, and its full pages sealed in this layer already.
        layer: the layer within the pool.
        query: `[tokens, heads, head_dim]` in any floating dtype; dims of a head lie side by side.
        step: the sequences the tokens belong to, on the pool's device.
        scale: what scores are multiplied by.
        output: `[tokens, heads, head_dim]`, contiguous, written to.
    """
    layout, num_heads = pool.layout, query.shape[1]
    num_programs = num_heads // heads_at_once(layout, num_heads)
    prefill_kernel[step.open_pages.shape[1], num_programs, len(step.lengths)](
        query,
        *page_arguments(pool, step),
        pool.rotation,
        output,
        *query.stride()[:2],
        step.page_tables.stride(0),
        step.open_pages.stride(0),
        layer,
        layout.num_layers,
        scale * math.log2(math.e),
        **prefill_constants(layout, num_heads),
        num_warps=num_warps(layout, num_heads),
    )
