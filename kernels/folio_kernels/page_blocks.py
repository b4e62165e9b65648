"""Blocks of one part of a page, an array `[tokens, D]` in memory. Does not know what they hold."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_block(
    p_x, ROW: tl.constexpr, ROWS: tl.constexpr, COLUMN: tl.constexpr, COLUMNS: tl.constexpr, D: tl.constexpr
):
    """A block of an array `[tokens, D]`."""
    o_row, o_column = ROW + tl.arange(0, ROWS), COLUMN + tl.arange(0, COLUMNS)
    return tl.load(p_x + o_row[:, None] * D + o_column[None, :])


@triton.jit
def store_block(p_x, b_x, ROW: tl.constexpr, COLUMN: tl.constexpr, D: tl.constexpr):
    """Stores a block of an array `[tokens, D]`."""
    o_row, o_column = ROW + tl.arange(0, b_x.shape[0]), COLUMN + tl.arange(0, b_x.shape[1])
    tl.store(p_x + o_row[:, None] * D + o_column[None, :], b_x)


@triton.jit
def channel_blocks(
    p_x, ROWS: tl.constexpr, COLUMN: tl.constexpr, COLUMNS: tl.constexpr, D: tl.constexpr, PAGE: tl.constexpr
):
    """Some dims of a part: blocks of a few tokens each, and every dim's least and largest number in float32.

    A thread then holds many tokens of few dims, whose range needs little talk between threads.
    """
    b_blocks = ()
    for row in tl.static_range(0, PAGE, ROWS):
        b_blocks += (load_block(p_x, row, ROWS, COLUMN, COLUMNS, D),)
    b_low, b_high = b_blocks[0], b_blocks[0]
    for block in tl.static_range(1, len(b_blocks)):
        b_low, b_high = tl.minimum(b_low, b_blocks[block]), tl.maximum(b_high, b_blocks[block])
    return b_blocks, tl.min(b_low, 0).to(tl.float32), tl.max(b_high, 0).to(tl.float32)
