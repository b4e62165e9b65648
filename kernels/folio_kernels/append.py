"""Writes a step's new keys and values into raw pages, values rotated on the way in where the codec rotates.

The rotation is a product with a matrix whose entries are all of one size: with that size taken out, plus and minus one
are left, which any dtype holds. So 16-bit values go through the tensor cores and lose nothing; only the order of the
fp32 sums differs from the reference's. Does not know which sequence a token belongs to.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from folio_kernels import encoding
from folio_kernels.layout import PAGE_SIZE, PageLayout
from folio_kernels.pool import PagePool

FP16_MAX = tl.constexpr(encoding.FP16_MAX)

DIMS_AT_ONCE = 64
"""Dims that one program writes, and that one product of a rotation sums over."""

BLOCK_ROWS = 32
"""(token, KV head) pairs that one program writes. One size for decode and prefill: what a page holds must not depend
on how many tokens came with it, and another block may sum in another order."""


@triton.jit
def rotated(p_row, is_row, p_column, ROOT: tl.constexpr, D: tl.constexpr, STRIP: tl.constexpr):
    """Rows of values times some columns of the rotation, in float32; ROOT is the root of D."""
    o_sum = tl.arange(0, STRIP)
    b_sum = tl.zeros((p_row.shape[0], p_column.shape[0]), tl.float32)
    for strip in tl.range(0, D, STRIP, num_stages=1):
        b_value = tl.load(p_row[:, None] + strip + o_sum[None, :], mask=is_row[:, None], other=0.0)
        b_rotation = tl.load(p_column[None, :] + (strip + o_sum[:, None]) * D)
        b_sum = tl.dot(b_value, (b_rotation * ROOT).to(b_value.dtype), b_sum, input_precision="ieee")
    return b_sum / ROOT


@triton.jit
def store_rows(p_block, is_row, b_x):
    """Stores rows in the cache's dtype; fp16 saturates rather than hold an infinity."""
    if p_block.dtype.element_ty == tl.float16:
        b_x = tl.minimum(tl.maximum(b_x, -FP16_MAX), FP16_MAX)
    tl.store(p_block, b_x.to(p_block.dtype.element_ty), mask=is_row[:, None])


@triton.jit
def append_kernel(
    p_key,
    p_value,
    p_slots,
    p_raw,
    p_rotation,
    key_token_stride,
    key_head_stride,
    value_token_stride,
    value_head_stride,
    num_rows,
    layer,
    num_layers,
    KV_HEADS: tl.constexpr,
    D: tl.constexpr,
    PAGE: tl.constexpr,
    ROOT: tl.constexpr,
    DIMS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program per BLOCK rows, a row being a token's KV head, and DIMS of its dims.

    `p_raw` is `[page, num_layers, KV_HEADS, 2, PAGE, D]`.

    Slots are int64, and with them all that is counted in elements of the pool.
    """
    o_row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_row = o_row < num_rows
    o_token, o_head = (o_row // KV_HEADS).to(tl.int64), o_row % KV_HEADS
    b_slot = tl.load(p_slots + o_token, mask=is_row, other=0)
    o_record = (b_slot // PAGE * num_layers + layer) * KV_HEADS + o_head
    o_dim = tl.program_id(1) * DIMS + tl.arange(0, DIMS)
    p_to = (p_raw + (o_record * 2 * PAGE + b_slot % PAGE) * D)[:, None] + o_dim[None, :]
    p_key_row = p_key + o_token * key_token_stride + o_head * key_head_stride
    p_value_row = p_value + o_token * value_token_stride + o_head * value_head_stride
    store_rows(p_to, is_row, tl.load(p_key_row[:, None] + o_dim[None, :], mask=is_row[:, None], other=0.0))
    if p_rotation is None:
        b_value = tl.load(p_value_row[:, None] + o_dim[None, :], mask=is_row[:, None], other=0.0)
    else:
        b_value = rotated(p_value_row, is_row, p_rotation + o_dim, ROOT, D, DIMS)
    store_rows(p_to + PAGE * D, is_row, b_value)


def append(pool: PagePool, layer: int, key: torch.Tensor, value: torch.Tensor, slots: torch.Tensor) -> None:
    """Writes new keys and values into raw pages.

    Args:
        pool: the pages.
        layer: the layer within the pool.
        key: `[tokens, kv_heads, head_dim]` in any floating dtype; dims of a head lie side by side.
        value: as the key.
        slots: `[tokens]` int64, `raw_page * page_size + offset`; no two are the same.
    """
    layout = pool.layout
    num_rows = len(slots) * layout.num_kv_heads
    if num_rows == 0:
        return
    assert key.stride(-1) == 1 and value.stride(-1) == 1  # noqa: PT018 - one layout, two tensors
    append_kernel[triton.cdiv(num_rows, BLOCK_ROWS), layout.head_dim // DIMS_AT_ONCE](
        key,
        value,
        slots,
        pool.raw,
        pool.rotation,
        *key.stride()[:2],
        *value.stride()[:2],
        num_rows,
        layer,
        layout.num_layers,
        **append_constants(layout),
        enable_fp_fusion=False,
    )


def append_constants(layout: PageLayout) -> dict[str, int | float]:
    """What `append_kernel` is compiled for."""
    return {
        "KV_HEADS": layout.num_kv_heads,
        "D": layout.head_dim,
        "PAGE": PAGE_SIZE,
        "ROOT": layout.head_dim**0.5,
        "DIMS": DIMS_AT_ONCE,
        "BLOCK": BLOCK_ROWS,
    }
