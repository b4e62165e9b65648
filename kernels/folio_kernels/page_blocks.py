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
