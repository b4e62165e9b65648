"""Attention of one KV head's queries over uncompressed pages: sinks and open pages, and all pages of codec `none`.

Products are taken in the cache's dtype and summed in float32. Knows one list of pages, of which all but the last are
full.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOWEST = tl.constexpr(-1e30)
"""Where a running maximum starts: below any score, and finite, so that a stretch without tokens leaves no NaN."""

TOKENS_AT_ONCE = 16
"""Tokens whose keys and values are held at once: what one warp has registers for."""


@triton.jit
def attend_raw_pages(
    p_query,
    p_pages,
    p_table,
    p_output,
    p_lse,
    is_head,
    num_stored,
    open_page,
    num_open_tokens,
    head_stride,
    page_elements,
    scale,
    D: tl.constexpr,
    PAGE: tl.constexpr,
    TOKENS: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    """The `num_stored` full pages of a table, then the first tokens of the open page, for one KV head of one sequence.

    `p_pages` points at this layer's and head's `[2, PAGE, D]` in the first page. `p_output` gets `[group, D]` float32,
    softmax's mean over these tokens; `p_lse` the logarithm to base 2 of the sum.
    """
    BLOCK: tl.constexpr = is_head.shape[0]
    o_dim, o_head = tl.arange(0, D), tl.arange(0, BLOCK)
    p_dims = p_query + o_head[None, :] * head_stride + o_dim[:, None]
    b_query = tl.load(p_dims, mask=is_head[None, :], other=0.0).to(p_pages.dtype.element_ty)
    b_max = tl.full((BLOCK,), LOWEST, tl.float32)
    b_sum = tl.zeros((BLOCK,), tl.float32)
    b_output = tl.zeros((D, BLOCK), tl.float32)
    num_tokens = num_stored * PAGE + num_open_tokens
    for start in tl.range(0, num_tokens, TOKENS, num_stages=NUM_STAGES):
        i_page = start // PAGE
        page = tl.load(p_table + i_page, mask=i_page < num_stored, other=open_page).to(tl.int64)
        o_token = start % PAGE + tl.arange(0, TOKENS)
        is_token = start + tl.arange(0, TOKENS) < num_tokens
        p_keys = p_pages + page * page_elements + o_token[:, None] * D + o_dim[None, :]
        b_keys = tl.load(p_keys, mask=is_token[:, None], other=0.0)
        b_scores = tl.dot(b_keys, b_query, input_precision="ieee") * scale
        b_scores = tl.where(is_token[:, None], b_scores, float("-inf"))
        b_before = b_max
        b_max = tl.maximum(b_before, tl.max(b_scores, 0))
        b_decay = tl.exp2(b_before - b_max)
        b_share = tl.exp2(b_scores - b_max[None, :])
        b_sum = b_sum * b_decay + tl.sum(b_share, 0)
        p_values = p_pages + page * page_elements + PAGE * D + o_token[None, :] * D + o_dim[:, None]
        b_values = tl.load(p_values, mask=is_token[None, :], other=0.0)
        b_weights = b_share.to(b_values.dtype)
        b_output = tl.dot(b_values, b_weights, b_output * b_decay[None, :], input_precision="ieee")
    tl.store(p_output + o_head[None, :] * D + o_dim[:, None], b_output / b_sum[None, :], mask=is_head[None, :])
    tl.store(p_lse + o_head, b_max + tl.log2(b_sum), mask=is_head)
