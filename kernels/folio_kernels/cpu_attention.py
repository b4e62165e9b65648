"""Attention on a machine without a C++ compiler: a sequence's pages decompressed, then torch's own attention.

Slower than the compiled kernels, and sequence by sequence; the same numbers but for rounding. Knows shapes and page
ids of one step; not where they came from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention

from folio_kernels import reference
from folio_kernels.layout import PAGE_SIZE
from folio_kernels.pool import SEALED, AttentionBatch, PagePool


def attend(
    pool: PagePool, layer: int, query: torch.Tensor, plans: tuple[SequencePlan, ...], scale: float
) -> torch.Tensor:
    """Attention of `[tokens, heads, head_dim]` float32 queries by the page rule; float32 of the same shape."""
    output = torch.empty(query.shape)
    for plan in plans:
        pages = plan.stored_ids[plan.stored_kinds == SEALED]
        keys, values = reference.read_sealed(pool, layer, pages)
        history = stored_history(pool.raw[:, layer], keys, values, plan)
        output[plan.rows] = masked_attention(query[plan.rows], history, plan.mask, scale)
    return output if pool.rotation is None else output @ pool.rotation


@dataclass(frozen=True)
class SequencePlan:
    """One sequence of a step.

    Attributes:
        rows: its tokens in the flattened batch.
        stored_ids, stored_kinds: int64 `[pages]`: every page before the last touched one, as stored.
        own_pages: int64 `[touched]`: the raw pages its tokens lie in.
        last_length: how many tokens of the last touched page count.
        mask: float32 `[tokens, (pages + touched) * page_size]`: zero where a query may read, else minus infinity.
    """

    rows: slice
    stored_ids: torch.Tensor
    stored_kinds: torch.Tensor
    own_pages: torch.Tensor
    last_length: int
    mask: torch.Tensor


def plan_sequence(batch: AttentionBatch, sequence: int) -> SequencePlan:
    """Lists the pages of one sequence and draws the page rule's mask."""
    start, num_new, length = (
        int(batch.query_starts[sequence]),
        batch.num_new[sequence],
        int(batch.lengths[sequence]),
    )
    first_page, last_page = (length - num_new) // PAGE_SIZE, (length - 1) // PAGE_SIZE
    positions = torch.arange(length - num_new, length)
    own_page = (positions // PAGE_SIZE).unsqueeze(1)
    stored_page = torch.arange(last_page * PAGE_SIZE) // PAGE_SIZE
    own_position = torch.arange(first_page * PAGE_SIZE, (last_page + 1) * PAGE_SIZE)
    own = (own_position // PAGE_SIZE == own_page) & (own_position <= positions.unsqueeze(1))
    return SequencePlan(
        rows=slice(start, start + num_new),
        stored_ids=batch.page_tables[sequence, :last_page].long(),
        stored_kinds=batch.page_kinds[sequence, :last_page],
        own_pages=batch.open_pages[sequence, : last_page - first_page + 1].long(),
        last_length=length - last_page * PAGE_SIZE,
        mask=torch.where(torch.cat([stored_page < own_page, own], 1), 0.0, -torch.inf),
    )


def stored_history(
    raw: torch.Tensor, sealed_keys: torch.Tensor, sealed_values: torch.Tensor, plan: SequencePlan
) -> torch.Tensor:
    """What a sequence's queries read: stored pages, then its own raw ones; float32 `[2, kv_heads, length, head_dim]`.

    `sealed_keys` and `sealed_values` are its sealed pages, decompressed, in the order of the history.
    """
    num_stored, is_sealed = len(plan.stored_ids), plan.stored_kinds == SEALED
    _, num_kv_heads, page_size, head_dim = sealed_keys.shape
    pages = torch.empty((2, num_kv_heads, num_stored + len(plan.own_pages), page_size, head_dim))
    by_page = pages.transpose(1, 2)
    by_page[0, :num_stored][is_sealed] = sealed_keys
    by_page[1, :num_stored][is_sealed] = sealed_values
    by_page[:, :num_stored][:, ~is_sealed] = raw[plan.stored_ids[~is_sealed]].permute(2, 0, 1, 3, 4).float()
    by_page[:, num_stored:] = raw[plan.own_pages].permute(2, 0, 1, 3, 4)
    by_page[:, -1, :, plan.last_length :] = 0.0
    return pages.flatten(2, 3)


def masked_attention(query: torch.Tensor, history: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
    """Masked attention of one sequence's new tokens.

    Args:
        query: `[tokens, heads, head_dim]` float32.
        history: `[keys and values, kv_heads, length, head_dim]` float32.
        mask: `[tokens, length]` float32, added to the scores.
        scale: what scores are multiplied by.

    Returns:
        `[tokens, heads, head_dim]`, values still rotated.
    """
    num_kv_heads = history.shape[1]
    grouped = query.transpose(0, 1).unflatten(0, (num_kv_heads, -1))
    keys, values = history.unsqueeze(2).expand(-1, -1, grouped.shape[1], -1, -1).unbind()
    output = scaled_dot_product_attention(grouped, keys, values, attn_mask=mask, scale=scale)
    return output.flatten(0, 1).transpose(0, 1)
