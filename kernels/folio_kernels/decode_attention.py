"""Attention of one new token per sequence: unpacking and split-KV attention in one launch, merging in a second.

One program, of a single warp where registers allow, reads one stretch of a sequence's pages for one KV head and all
query heads that share it, page after page. Stretch 0 is the raw pages: the sinks and the open page; the others share
out the sealed ones. Grids depend on shapes alone, lengths and page tables are read on the device: a CUDA graph captures
a step. Sequences with more or fewer new tokens are passed over.

Does not know why a page is raw or sealed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from folio_kernels.layout import PAGE_SIZE, PageLayout
from folio_kernels.merge_attention import merge_attention
from folio_kernels.pool import PagePool
from folio_kernels.raw_attention import TOKENS_AT_ONCE, attend_raw_pages
from folio_kernels.sealed_attention import attend_sealed_pages
from folio_kernels.step_tensors import StepTensors

NUM_STAGES = 3
"""What the compiler pipelines: one page is computed on while the next one is loaded."""

NUM_WARPS = {64: 1, 128: 1, 256: 2}
"""By head_dim: as few as hold a page's products in registers. Warps that share a page wait for each other."""

MIN_BLOCK = 8
"""The short side of the tensor cores' products."""

PROGRAMS_AT_ONCE = 8
"""Programs that a multiprocessor runs at once: what its registers hold."""

STRETCH_OVERHEAD_PAGES = 2
"""What starting, storing and merging a stretch costs, in the time of pages."""


@dataclass(frozen=True)
class Stretches:
    """How sealed pages are shared out: `count` stretches of `num_pages` each."""

    count: int
    num_pages: int


def share_out(num_pages: int, num_rows: int, num_programs_at_once: int) -> Stretches:
    """The stretches that end soonest when as many programs as fit run at once, wave after wave.

    Args:
        num_pages: pages of the longest history.
        num_rows: sequences times KV heads: each has stretches of its own.
        num_programs_at_once: what the device runs at once.
    """
    best, least, count = Stretches(1, max(num_pages, 1)), math.inf, 1
    while count <= num_pages:
        each = -(-num_pages // count)
        num_waves = -(-num_rows * count // num_programs_at_once)
        time = num_waves * (each + STRETCH_OVERHEAD_PAGES)
        if time < least:
            best, least = Stretches(count, each), time
        # The next count whose stretches are shorter: those between take more programs and end no sooner.
        count = -(-num_pages // (each - 1)) if each > 1 else num_pages + 1
    return best


@triton.jit
def decode_kernel(
    p_query,
    p_raw,
    p_sealed,
    p_query_starts,
    p_lengths,
    p_num_raw,
    p_tables,
    p_open_pages,
    p_partial,
    p_lse,
    query_token_stride,
    query_head_stride,
    table_stride,
    open_stride,
    layer,
    num_layers,
    stretch_pages,
    scale,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
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
    TOKENS: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    """One program per stretch, KV head and sequence of one new token.

    `p_raw` is `[page, num_layers, KV_HEADS, 2, PAGE, D]`, `p_sealed` `[page, num_layers, KV_HEADS, RECORD]`, in bytes
    or, where nothing is compressed, in elements of the cache. `p_partial` is `[sequences, KV_HEADS, stretches, GROUP,
    D]` float32 and `p_lse` the same without D, minus infinity for an empty stretch. Elements of pools are counted in
    64 bits.
    """
    i_stretch, i_head, i_sequence = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row = tl.load(p_query_starts + i_sequence)
    num_new = tl.load(p_query_starts + i_sequence + 1) - row
    if num_new == 1:
        length = tl.load(p_lengths + i_sequence)
        num_stored = (length - 1) // PAGE
        num_raw = tl.minimum(tl.load(p_num_raw + i_sequence), num_stored)
        p_table = p_tables + i_sequence.to(tl.int64) * table_stride
        o_record = layer.to(tl.int64) * KV_HEADS + i_head
        page_records = num_layers.to(tl.int64) * KV_HEADS
        is_head = tl.arange(0, BLOCK) < GROUP
        p_heads = p_query + row.to(tl.int64) * query_token_stride + (i_head * GROUP).to(tl.int64) * query_head_stride
        i_place = (i_sequence.to(tl.int64) * KV_HEADS + i_head) * tl.num_programs(0) + i_stretch
        p_output, p_share = p_partial + i_place * (GROUP * D), p_lse + i_place * GROUP
        first = num_raw + (i_stretch - 1) * stretch_pages
        last = tl.minimum(first + stretch_pages, num_stored)
        if i_stretch == 0:
            p_pages, page_elements = p_raw + o_record * (2 * PAGE * D), page_records * (2 * PAGE * D)
            open_page = tl.load(p_open_pages + i_sequence.to(tl.int64) * open_stride)
            num_open_tokens = length - num_stored * PAGE
            attend_raw_pages(
                p_heads, p_pages, p_table, p_output, p_share, is_head, num_raw, open_page, num_open_tokens,
                query_head_stride, page_elements, scale, D, PAGE, TOKENS, NUM_STAGES,
            )  # fmt: skip
        elif first >= last:
            o_head = tl.arange(0, BLOCK)
            tl.store(p_share + o_head, tl.full((BLOCK,), float("-inf"), tl.float32), mask=is_head)
        elif KEY_BITS > 8:
            attend_raw_pages(
                p_heads, p_sealed + o_record * RECORD, p_table + first, p_output, p_share, is_head, last - first, 0, 0,
                query_head_stride, page_records * RECORD, scale, D, PAGE, TOKENS, NUM_STAGES,
            )  # fmt: skip
        else:
            attend_sealed_pages(
                p_heads, p_sealed + o_record * RECORD, p_table, p_output, p_share, is_head, first, last,
                query_head_stride, page_records * RECORD, scale, D, PAGE, KEY_BITS, VALUE_BITS,
                KEY_SCALE, KEY_ZERO, VALUE_CODES, VALUE_SCALE, VALUE_ZERO, NUM_STAGES,
            )  # fmt: skip


def layout_constants(layout: PageLayout) -> dict[str, int]:
    """What kernels that read pages are compiled for: where a codec's fields lie."""
    codec, offsets = layout.codec, {name: field.offset for name, field in layout.fields.items()}
    return {
        "KV_HEADS": layout.num_kv_heads,
        "D": layout.head_dim,
        "PAGE": PAGE_SIZE,
        "KEY_BITS": codec.key_bits,
        "VALUE_BITS": codec.value_bits,
        "RECORD": layout.sealed_record_bytes if codec.compresses else layout.raw_record_elements,
        "KEY_SCALE": offsets.get("key_scale", 0),
        "KEY_ZERO": offsets.get("key_zero", 0),
        "VALUE_CODES": offsets["value_codes"],
        "VALUE_SCALE": offsets.get("value_scale", 0),
        "VALUE_ZERO": offsets.get("value_zero", 0),
    }


def page_arguments(pool: PagePool, step: StepTensors) -> tuple[torch.Tensor, ...]:
    """What kernels that read pages take first behind the query: the pages, then which of them each sequence reads."""
    sealed = pool.sealed if pool.layout.codec.compresses else pool.sealed.view(pool.layout.raw_dtype)
    which = (step.query_starts, step.lengths, step.num_raw_pages, step.page_tables, step.open_pages)
    return (pool.raw, sealed, *which)


def decode_constants(layout: PageLayout, num_heads: int) -> dict[str, int]:
    """What `decode_kernel` is compiled for: a model's heads and a codec's layout."""
    group = num_heads // layout.num_kv_heads
    return {
        **layout_constants(layout),
        "GROUP": group,
        "BLOCK": max(MIN_BLOCK, triton.next_power_of_2(group)),
        "TOKENS": _raw_tokens_at_once(layout),
        "NUM_STAGES": NUM_STAGES,
    }


def _raw_tokens_at_once(layout: PageLayout) -> int:
    """A whole page where its dims are few: with less, the compiler spills to stay at 168 registers."""
    is_small = layout.head_dim == 64 and layout.raw_dtype.itemsize == 2
    return PAGE_SIZE if is_small and layout.codec.compresses else TOKENS_AT_ONCE


def decode_attention(
    pool: PagePool,
    layer: int,
    query: torch.Tensor,
    step: StepTensors,
    scale: float,
    output: torch.Tensor,
    num_multiprocessors: int,
) -> None:
    """Attention of every sequence with one new token; other sequences' rows of the output are left alone.

    Args:
        pool: the pages; this step's keys and values are appended already.
        layer: the layer within the pool.
        query: `[tokens, heads, head_dim]` in any floating dtype; dims of a head lie side by side.
        step: the sequences the tokens belong to, on the pool's device.
        scale: what scores are multiplied by.
        output: `[tokens, heads, head_dim]`, contiguous, written to.
        num_multiprocessors: of the device.
    """
    layout, constants = pool.layout, decode_constants(pool.layout, query.shape[1])
    num_rows = len(step.lengths) * layout.num_kv_heads
    stretches = share_out(step.page_tables.shape[1], num_rows, PROGRAMS_AT_ONCE * num_multiprocessors)
    partial, lse = _partial_results(layout, len(step.lengths), 1 + stretches.count, constants["GROUP"], query.device)
    decode_kernel[tuple(lse.shape[2::-1])](
        query,
        *page_arguments(pool, step),
        partial,
        lse,
        *query.stride()[:2],
        step.page_tables.stride(0),
        step.open_pages.stride(0),
        layer,
        layout.num_layers,
        stretches.num_pages,
        scale * math.log2(math.e),
        **constants,
        num_warps=NUM_WARPS[layout.head_dim],
    )
    merge_attention(partial, lse, step.query_starts, pool.rotation, output, constants)


def _partial_results(
    layout: PageLayout, num_sequences: int, num_parts: int, group: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Room for what programs find: outputs `[sequences, kv_heads, parts, group, head_dim]` and their log-sum-exps."""
    places = (num_sequences, layout.num_kv_heads, num_parts, group)
    partial = torch.empty((*places, layout.head_dim), dtype=torch.float32, device=device)
    return partial, torch.empty(places, dtype=torch.float32, device=device)
