"""Compresses full raw pages into sealed ones: clip search, quantising and packing in one launch.

One program compresses the keys or the values of one page, layer and KV head. It holds them in registers as four
quarters of the head's dims, because packing puts dims of different quarters into one byte: the codes that share a byte
meet in the same thread, and a token's values lie in few threads, so that the clip search shuffles little.

Does not know which pages are full or why they are sealed now.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from folio_kernels import encoding, key_guide
from folio_kernels.guided_keys import seal_guided_keys
from folio_kernels.layout import PAGE_SIZE, PageLayout
from folio_kernels.page_blocks import channel_blocks, load_block, store_block
from folio_kernels.pool import PagePool
from folio_kernels.quantise import asymmetric_range, codes_of, reciprocal, symmetric_scale, unshrunk

KEY_CLIP_RATIOS = (1.0,)
"""Keys are not clipped: their outliers lie in channels, and each channel has a scale of its own."""
UNSHRUNK_BITS = tl.constexpr(encoding.UNSHRUNK_BITS)

NUM_WARPS = {64: 4, 128: 4, 256: 8}
"""By head_dim: what keeps a page part in registers without spills."""


@triton.jit
def seal_keys(
    p_keys,
    p_codes,
    p_scale,
    p_zero,
    BITS: tl.constexpr,
    RATIOS: tl.constexpr,
    ROWS: tl.constexpr,
    D: tl.constexpr,
    PAGE: tl.constexpr,
):
    """One range per channel over the page.

    Dims that share a byte are worked on one after the other.
    """
    SHARING: tl.constexpr = 8 // BITS
    WIDTH: tl.constexpr = D // SHARING
    LEVELS: tl.constexpr = 2.0**BITS - 1
    b_bytes = ()
    for share in tl.static_range(SHARING):
        b_blocks, b_low, b_high = channel_blocks(p_keys, ROWS, share * WIDTH, WIDTH, D, PAGE)
        b_codes = ()
        o_channel = share * WIDTH + tl.arange(0, WIDTH)
        if BITS == 8:
            b_scale = symmetric_scale(tl.maximum(-b_low, b_high))
        else:
            b_scale, b_zero = asymmetric_range(b_blocks, b_low, b_high, 0, LEVELS, RATIOS)
            tl.store(p_zero + o_channel, b_zero)
        tl.store(p_scale + o_channel, b_scale)
        b_reciprocal = reciprocal(b_scale)[None, :]
        for block in tl.static_range(len(b_blocks)):
            b_x = b_blocks[block].to(tl.float32)
            if BITS == 8:
                b_code = codes_of(b_x, b_reciprocal, -127.0, 127.0)
            else:
                b_code = codes_of(b_x - b_zero.to(tl.float32)[None, :], b_reciprocal, 0.0, LEVELS)
            if share > 0:
                b_code = b_bytes[block] | (b_code << (share * BITS))
            b_codes += (b_code,)
        b_bytes = b_codes
    for block in tl.static_range(len(b_bytes)):
        store_block(p_codes, b_bytes[block].to(tl.uint8), block * ROWS, 0, WIDTH)


@triton.jit
def seal_values(
    p_values, p_codes, p_scale, p_zero, BITS: tl.constexpr, RATIOS: tl.constexpr, D: tl.constexpr, PAGE: tl.constexpr
):
    """One range per token.

    The page comes as four quarters of the dims: few threads hold a token, and they hold all dims that share a byte.
    """
    QUARTER: tl.constexpr = D // 4
    LEVELS: tl.constexpr = 2.0**BITS - 1
    SHARING: tl.constexpr = 8 // BITS
    b_quarters, b_codes, o_token = (), (), tl.arange(0, PAGE)
    for quarter in tl.static_range(4):
        b_quarters += (load_block(p_values, 0, PAGE, quarter * QUARTER, QUARTER, D),)
    b_low, b_high = b_quarters[0], b_quarters[0]
    for quarter in tl.static_range(1, 4):
        b_low, b_high = tl.minimum(b_low, b_quarters[quarter]), tl.maximum(b_high, b_quarters[quarter])
    b_low, b_high = tl.min(b_low, 1).to(tl.float32), tl.max(b_high, 1).to(tl.float32)
    if BITS == 8:
        b_scale = symmetric_scale(tl.maximum(-b_low, b_high))
    else:
        b_scale, b_zero = asymmetric_range(b_quarters, b_low, b_high, 1, LEVELS, RATIOS)
    b_reciprocal = reciprocal(b_scale)[:, None]
    b_code_sum = tl.zeros((PAGE,), tl.float32)
    b_above_sum, b_product, b_square = b_code_sum, b_code_sum, b_code_sum
    for quarter in tl.static_range(4):
        b_x = b_quarters[quarter].to(tl.float32)
        if BITS == 8:
            b_codes += (codes_of(b_x, b_reciprocal, -127.0, 127.0),)
        else:
            b_above = b_x - b_zero.to(tl.float32)[:, None]
            b_codes += (codes_of(b_above, b_reciprocal, 0.0, LEVELS),)
            if BITS <= UNSHRUNK_BITS:
                b_code = b_codes[quarter].to(tl.float32)
                b_code_sum, b_above_sum = b_code_sum + tl.sum(b_code, 1), b_above_sum + tl.sum(b_above, 1)
                b_product, b_square = b_product + tl.sum(b_code * b_above, 1), b_square + tl.sum(b_above * b_above, 1)
    if BITS <= UNSHRUNK_BITS:
        b_scale, b_zero = unshrunk(b_scale, b_zero, b_code_sum, b_above_sum, b_product, b_square, D)
    if BITS < 8:
        tl.store(p_zero + o_token, b_zero)
    tl.store(p_scale + o_token, b_scale)
    for first in tl.static_range(4 // SHARING):
        b_byte = b_codes[first]
        for share in tl.static_range(1, SHARING):
            b_byte |= b_codes[first + share * (4 // SHARING)] << (share * BITS)
        store_block(p_codes, b_byte.to(tl.uint8), 0, first * QUARTER, D // SHARING)


@triton.jit
def seal_kernel(
    p_raw,
    p_key_codes,
    p_value_codes,
    p_key_scale,
    p_key_zero,
    p_value_scale,
    p_value_zero,
    p_guide,
    p_raw_pages,
    p_sealed_pages,
    first_layer,
    num_layers,
    KV_HEADS: tl.constexpr,
    D: tl.constexpr,
    PAGE: tl.constexpr,
    KEY_BITS: tl.constexpr,
    VALUE_BITS: tl.constexpr,
    RECORD_BYTES: tl.constexpr,
    KEY_RATIOS: tl.constexpr,
    VALUE_RATIOS: tl.constexpr,
    ROWS: tl.constexpr,
    STAGES: tl.constexpr,
    PRODUCT_SCALE: tl.constexpr,
):
    """One program per page, layer, and KV head's keys or values.

    `p_raw` is `[page, num_layers, KV_HEADS, 2, PAGE, D]`, `p_guide` `[num_layers, KV_HEADS, 2, D]` or None; the other
    pointers are the fields of the pool's first sealed record, whose records are `[page, num_layers, KV_HEADS]`. Records
    are counted in 64 bits: a pool has more elements than 32 bits count.
    """
    i_page, i_layer, i_part = tl.program_id(0), first_layer + tl.program_id(1), tl.program_id(2)
    i_head, is_value = i_part // 2, i_part % 2
    i_raw = (tl.load(p_raw_pages + i_page).to(tl.int64) * num_layers + i_layer) * KV_HEADS + i_head
    i_sealed = (tl.load(p_sealed_pages + i_page).to(tl.int64) * num_layers + i_layer) * KV_HEADS + i_head
    p_part = p_raw + (i_raw * 2 + is_value) * (PAGE * D)
    o_codes = i_sealed * (RECORD_BYTES * 8 // p_key_codes.dtype.element_ty.primitive_bitwidth)
    o_scale = i_sealed * (RECORD_BYTES // 2)
    if KEY_BITS > 8:
        p_codes = (p_value_codes if is_value else p_key_codes) + o_codes
        store_block(p_codes, load_block(p_part, 0, PAGE, 0, D, D), 0, 0, D)
    elif is_value:
        p_zero = p_value_scale if p_value_zero is None else p_value_zero
        p_codes, p_scale, p_zero = p_value_codes + o_codes, p_value_scale + o_scale, p_zero + o_scale
        seal_values(p_part, p_codes, p_scale, p_zero, VALUE_BITS, VALUE_RATIOS, D, PAGE)
    else:
        p_zero = p_key_scale if p_key_zero is None else p_key_zero
        p_codes, p_scale, p_zero = p_key_codes + o_codes, p_key_scale + o_scale, p_zero + o_scale
        if p_guide is None:
            seal_keys(p_part, p_codes, p_scale, p_zero, KEY_BITS, KEY_RATIOS, ROWS, D, PAGE)
        else:
            p_guide += (i_layer * KV_HEADS + i_head) * (2 * D)
            seal_guided_keys(
                p_part, p_codes, p_scale, p_zero, p_guide, KEY_RATIOS, STAGES, PRODUCT_SCALE, ROWS, D, PAGE
            )


def seal(pool: PagePool, layers: slice, raw_pages: torch.Tensor, sealed_pages: torch.Tensor) -> None:
    """Compresses full raw pages into sealed ones, in the given layers; the raw pages keep what they hold.

    Args:
        pool: the pages; values lie in raw pages rotated already where the codec rotates.
        layers: which layers, without a step.
        raw_pages: `[count]` int64 on the pool's device, which raw pages.
        sealed_pages: `[count]` int64, the sealed page that each becomes; no two are the same.
    """
    layout = pool.layout
    first_layer, end_layer, _ = layers.indices(layout.num_layers)
    if len(raw_pages) == 0 or end_layer <= first_layer:
        return
    names = ("key_codes", "value_codes", "key_scale", "key_zero", "value_scale", "value_zero")
    fields = [pool.sealed_field(name) if name in layout.fields else None for name in names]
    seal_kernel[len(raw_pages), end_layer - first_layer, 2 * layout.num_kv_heads](
        pool.raw,
        *fields,
        pool.key_guide,
        raw_pages,
        sealed_pages,
        first_layer,
        layout.num_layers,
        **seal_constants(layout),
        num_warps=NUM_WARPS[layout.head_dim],
        enable_fp_fusion=False,
    )


def seal_constants(layout: PageLayout) -> dict[str, int | float | tuple[float, ...]]:
    """What `seal_kernel` is compiled for."""
    return {
        "KV_HEADS": layout.num_kv_heads,
        "D": layout.head_dim,
        "PAGE": PAGE_SIZE,
        "KEY_BITS": layout.codec.key_bits,
        "VALUE_BITS": layout.codec.value_bits,
        "RECORD_BYTES": layout.sealed_record_bytes,
        "KEY_RATIOS": KEY_CLIP_RATIOS,
        "VALUE_RATIOS": encoding.CLIP_RATIOS,
        "STAGES": key_guide.STAGES,
        "PRODUCT_SCALE": key_guide.product_scale(layout.head_dim),
        "ROWS": rows_of_block(layout.codec.key_bits, layout.head_dim),
    }


def rows_of_block(key_bits: int, head_dim: int) -> int:
    """How many tokens' keys make a block of two keys a thread, of the dims that take different bytes."""
    return 2 * 32 * NUM_WARPS[head_dim] * max(1, 8 // key_bits) // head_dim
