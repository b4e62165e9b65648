"""Puts together what programs found in their stretches of a history: the mean of means, weighted by softmax sums.

Turns the result back where the codec rotates values. Does not know what the stretches were.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import triton
import triton.language as tl

STRETCHES_AT_ONCE = 4
"""Partial results that are read at once."""

DIMS_AT_ONCE = 32
"""Dims that are turned back at once."""


@triton.jit
def merge_kernel(
    p_partial,
    p_lse,
    p_query_starts,
    p_rotation,
    p_output,
    num_stretches,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
    D: tl.constexpr,
    DIMS: tl.constexpr,
    AT_ONCE: tl.constexpr,
):
    """One program per KV head and sequence of one new token.

    `p_partial` is `[sequences, KV_HEADS, num_stretches, GROUP, D]` float32, `p_lse` the same without D and minus
    infinity where a stretch is empty: its partial result is not read. `p_output` is `[tokens, KV_HEADS * GROUP, D]`.
    """
    i_head, i_sequence = tl.program_id(0), tl.program_id(1)
    row = tl.load(p_query_starts + i_sequence)
    num_new = tl.load(p_query_starts + i_sequence + 1) - row
    if num_new == 1:
        o_dim, o_head = tl.arange(0, D), tl.arange(0, BLOCK)
        is_head = o_head < GROUP
        i_first = (i_sequence.to(tl.int64) * KV_HEADS + i_head) * num_stretches
        b_max = tl.full((BLOCK,), float("-inf"), tl.float32)
        b_sum = tl.zeros((BLOCK,), tl.float32)
        b_output = tl.zeros((D, BLOCK), tl.float32)
        for stretch in tl.range(0, num_stretches, AT_ONCE):
            o_stretch = stretch + tl.arange(0, AT_ONCE)
            o_place = (i_first + o_stretch)[:, None] * GROUP + o_head[None, :]
            is_place = (o_stretch < num_stretches)[:, None] & is_head[None, :]
            b_lse = tl.load(p_lse + o_place, mask=is_place, other=float("-inf"))
            b_before = b_max
            # The first stretch holds at least the new token: from then on the maximum is finite, but for padding.
            b_max = tl.maximum(b_before, tl.max(b_lse, 0))
            b_bound = tl.where(is_head, b_max, 0.0)
            b_decay, b_weight = tl.exp2(b_before - b_bound), tl.exp2(b_lse - b_bound[None, :])
            p_means = p_partial + o_place[:, None, :] * D + o_dim[None, :, None]
            b_mean = tl.load(p_means, mask=(b_weight > 0)[:, None, :], other=0.0)
            b_sum = b_sum * b_decay + tl.sum(b_weight, 0)
            b_output = b_output * b_decay[None, :] + tl.sum(b_mean * b_weight[:, None, :], 0)
        b_output = b_output / tl.where(is_head, b_sum, 1.0)[None, :]
        o_row = row.to(tl.int64) * (KV_HEADS * GROUP) + i_head * GROUP
        p_dims = p_output + o_row * D + o_head[None, :] * D
        if p_rotation is None:
            tl.store(p_dims + o_dim[:, None], b_output.to(p_output.dtype.element_ty), mask=is_head[None, :])
        else:
            for strip in tl.range(0, D, DIMS):
                o_strip = strip + tl.arange(0, DIMS)
                b_rotation = tl.load(p_rotation + o_strip[:, None] * D + o_dim[None, :])
                b_turned = tl.dot(b_rotation, b_output, input_precision="tf32x3")
                tl.store(p_dims + o_strip[:, None], b_turned.to(p_output.dtype.element_ty), mask=is_head[None, :])


def merge_attention(
    partial: torch.Tensor,
    lse: torch.Tensor,
    query_starts: torch.Tensor,
    rotation: torch.Tensor | None,
    output: torch.Tensor,
    constants: Mapping[str, int],
) -> None:
    """Merges what one launch of `decode_kernel` found; other sequences' rows of the output are left alone.

    Args:
        partial: `[sequences, kv_heads, stretches, group, head_dim]` float32.
        lse: the same without head_dim.
        query_starts: `[sequences + 1]` int32.
        rotation: `[head_dim, head_dim]` float32; None where values are not rotated.
        output: `[tokens, heads, head_dim]`, contiguous, written to.
        constants: what `decode_kernel` was compiled for.
    """
    num_sequences, num_kv_heads, num_stretches = lse.shape[:3]
    merge_kernel[num_kv_heads, num_sequences](
        partial, lse, query_starts, rotation, output, num_stretches, **merge_constants(constants)
    )


def merge_constants(constants: Mapping[str, int]) -> dict[str, int]:
    """What `merge_kernel` is compiled for beside a `decode_kernel` of these constants."""
    shared = {name: constants[name] for name in ("KV_HEADS", "GROUP", "BLOCK", "D")}
    return {**shared, "DIMS": DIMS_AT_ONCE, "AT_ONCE": STRETCHES_AT_ONCE}
