"""The CPU path: the reference's mathematics, laid out for batches and compiled.

Decoding treats every (sequence, page) pair as one item of equal size, so a ragged batch wastes nothing: partial
softmax sums per item, then one gather that merges the items of a sequence. Prefill decompresses a sequence's stored
pages once per layer and runs torch's attention with the page rule as its mask.
Knows shapes and page ids of one step; not where they came from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention

from folio_kernels import reference
from folio_kernels.codecs import Codec
from folio_kernels.layout import PAGE_SIZE
from folio_kernels.pool import SEALED, AttentionBatch

MIN_EXTENT = 2
"""Dimensions that vary from step to step never fall below this: the compiler would specialise on 0 and on 1."""


@dataclass(frozen=True)
class DecodePlan:
    """The items, (sequence, page) pairs, of a step's sequences of one new token.

    All tensors are int64, padded to `MIN_EXTENT` along every dimension.

    Attributes:
        rows: `[sequences]`, each sequence's row in the flattened batch.
        sealed_pages, sealed_rows: `[sealed items]`, page id, and index into `rows`; None where no history has a
            sealed page, so that short ones are spared the work.
        raw_pages, raw_rows, raw_lengths: `[raw items]`, besides how many of the page's tokens count.
        merge_table: `[sequences, most items of any]`: each sequence's items, sealed ones counted first, then raw
            ones, then an empty one that fills up short rows.
        num_sequences: how many rows are not padding.
    """

    rows: torch.Tensor
    sealed_pages: torch.Tensor | None
    sealed_rows: torch.Tensor | None
    raw_pages: torch.Tensor
    raw_rows: torch.Tensor
    raw_lengths: torch.Tensor
    merge_table: torch.Tensor
    num_sequences: int


@dataclass(frozen=True)
class PrefillPlan:
    """One sequence of several new tokens.

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


@dataclass(frozen=True)
class StepPlan:
    """How the CPU runs one step: made once, used by every layer."""

    decode: DecodePlan | None
    prefills: tuple[PrefillPlan, ...]


def plan_step(batch: AttentionBatch) -> StepPlan:
    """Sorts a batch's sequences into decodes (one new token) and prefills."""
    decoding = [sequence for sequence, count in enumerate(batch.num_new) if count == 1]
    prefills = [sequence for sequence, count in enumerate(batch.num_new) if count > 1]
    return StepPlan(
        decode=plan_decode(batch, decoding) if decoding else None,
        prefills=tuple(plan_prefill(batch, sequence) for sequence in prefills),
    )


def plan_decode(batch: AttentionBatch, sequences: list[int]) -> DecodePlan:
    """Lists the items of the given sequences."""
    tables, kinds = batch.page_tables.tolist(), batch.page_kinds.tolist()
    starts, lengths = batch.query_starts.tolist(), batch.lengths.tolist()
    sealed: list[tuple[int, int]] = []
    raw: list[tuple[int, int, int]] = []
    for row, sequence in enumerate(sequences):
        own_page = (lengths[sequence] - 1) // PAGE_SIZE
        for page, kind in zip(tables[sequence][:own_page], kinds[sequence][:own_page], strict=True):
            if kind == SEALED:
                sealed.append((page, row))
            else:
                raw.append((page, row, PAGE_SIZE))
        raw.append((int(batch.open_pages[sequence, 0]), row, lengths[sequence] - own_page * PAGE_SIZE))
    merge_table = _merge_table([row for _, row in sealed], [row for _, row, _ in raw], len(sequences))
    raw += [(0, 0, 1)] * (MIN_EXTENT - len(raw))
    rows = [starts[sequence] for sequence in sequences]
    rows += rows[:1] * (MIN_EXTENT - len(rows))
    sealed_items, raw_items = _columns(sealed), torch.tensor(raw).T.contiguous()
    return DecodePlan(
        rows=torch.tensor(rows),
        sealed_pages=None if sealed_items is None else sealed_items[0],
        sealed_rows=None if sealed_items is None else sealed_items[1],
        raw_pages=raw_items[0],
        raw_rows=raw_items[1],
        raw_lengths=raw_items[2],
        merge_table=merge_table,
        num_sequences=len(sequences),
    )


def _columns(sealed: list[tuple[int, int]]) -> torch.Tensor | None:
    """Page ids and rows of sealed items as the rows of a padded matrix."""
    if not sealed:
        return None
    return torch.tensor(sealed + [(0, 0)] * (MIN_EXTENT - len(sealed))).T.contiguous()


def _merge_table(sealed_rows: list[int], raw_rows: list[int], num_rows: int) -> torch.Tensor:
    """Each row's items by index, counted with the padding that the two lists get; no sealed item, no padding."""
    num_sealed, num_raw = len(sealed_rows) and max(len(sealed_rows), MIN_EXTENT), max(len(raw_rows), MIN_EXTENT)
    items: list[list[int]] = [[] for _ in range(max(num_rows, MIN_EXTENT))]
    for index, row in enumerate(sealed_rows):
        items[row].append(index)
    for index, row in enumerate(raw_rows):
        items[row].append(num_sealed + index)
    width = max(MIN_EXTENT, *map(len, items))
    empty_item = num_sealed + num_raw
    return torch.tensor([row + [empty_item] * (width - len(row)) for row in items])


def plan_prefill(batch: AttentionBatch, sequence: int) -> PrefillPlan:
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
    return PrefillPlan(
        rows=slice(start, start + num_new),
        stored_ids=batch.page_tables[sequence, :last_page].long(),
        stored_kinds=batch.page_kinds[sequence, :last_page],
        own_pages=batch.open_pages[sequence, : last_page - first_page + 1].long(),
        last_length=length - last_page * PAGE_SIZE,
        mask=torch.where(torch.cat([stored_page < own_page, own], 1), 0.0, -torch.inf),
    )


def decode_attention(  # noqa: PLR0917 - compiled, and called in one place
    query: torch.Tensor,
    raw: torch.Tensor,
    fields: dict[str, torch.Tensor],
    plan: DecodePlan,
    codec: Codec,
    rotation: torch.Tensor | None,
) -> torch.Tensor:
    """Attention of one query per sequence over all its pages.

    Args:
        query: `[sequences, heads, head_dim]` float32, scaled.
        raw: one layer of the raw pool, `[raw pages, kv_heads, 2, page_size, head_dim]`.
        fields: one layer of the sealed pool by field, `[sealed pages, kv_heads, ...]`.
        plan: the items.
        codec: how sealed pages are stored.
        rotation: what turns values back, where the codec rotates them.

    Returns:
        float32 of the query's shape.
    """
    grouped = query.unflatten(1, (raw.shape[1], -1))
    partials = [_raw_partials(grouped, raw, plan), _empty_item(grouped)]
    if plan.sealed_pages is not None:
        partials.insert(0, _sealed_partials(grouped, fields, plan, codec))
    output = _merge(partials, plan.merge_table).flatten(1, 2)
    return output if rotation is None else output @ rotation


Partials = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Per item, KV head and query of the group: largest score, sum of exponentials, and of those times the values."""


def _sealed_partials(query: torch.Tensor, fields: dict[str, torch.Tensor], plan: DecodePlan, codec: Codec) -> Partials:
    """Scores from codes: a key's scale folds into the query once a page, a value's into its probability."""
    stored = {name: values[plan.sealed_pages] for name, values in fields.items()}
    query = query[plan.sealed_rows]
    if not codec.compresses:
        return _partials(query, stored["key_codes"].float(), stored["value_codes"].float(), None)
    keys = reference.codes_of(stored["key_codes"], codec.key_bits)
    values = reference.codes_of(stored["value_codes"], codec.value_bits)
    scores = _batched(query * stored["key_scale"].float().unsqueeze(-2), keys.transpose(-1, -2))
    if "key_zero" in stored:
        scores = scores + (query * stored["key_zero"].float().unsqueeze(-2)).sum(-1, keepdim=True)
    largest = scores.amax(-1)
    weights = (scores - largest.unsqueeze(-1)).exp()
    output = _batched(weights * stored["value_scale"].float().unsqueeze(-2), values)
    if "value_zero" in stored:
        output = output + (weights * stored["value_zero"].float().unsqueeze(-2)).sum(-1, keepdim=True)
    return largest, weights.sum(-1), output


def _raw_partials(query: torch.Tensor, raw: torch.Tensor, plan: DecodePlan) -> Partials:
    pages = raw[plan.raw_pages].float()
    counts = torch.arange(PAGE_SIZE) < plan.raw_lengths.unsqueeze(-1)
    values = torch.where(counts[:, None, :, None], pages[:, :, 1], 0.0)
    return _partials(query[plan.raw_rows], pages[:, :, 0], values, counts[:, None, None])


def _partials(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, counts: torch.Tensor | None) -> Partials:
    scores = _batched(query, keys.transpose(-1, -2))
    if counts is not None:
        scores = torch.where(counts, scores, -torch.inf)
    largest = scores.amax(-1)
    weights = (scores - largest.unsqueeze(-1)).exp()
    return largest, weights.sum(-1), _batched(weights, values)


def _batched(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Matrix products over the two leading dimensions."""
    return torch.bmm(left.flatten(0, 1), right.flatten(0, 1)).unflatten(0, left.shape[:2])


def _empty_item(query: torch.Tensor) -> Partials:
    """An item that counts for nothing."""
    shape = (1, *query.shape[1:])
    return query.new_full(shape[:-1], -torch.inf), query.new_zeros(shape[:-1]), query.new_zeros(shape)


def _merge(partials: list[Partials], merge_table: torch.Tensor) -> torch.Tensor:
    """Adds up each sequence's items, weighted by how far its largest score lies above theirs."""
    parts = [torch.cat(kind) for kind in zip(*partials, strict=True)]
    largest, total, output = (part[merge_table] for part in parts)
    weights = (largest - largest.amax(1, keepdim=True)).exp()
    return (weights.unsqueeze(-1) * output).sum(1) / (weights * total).sum(1).unsqueeze(-1)


def stored_history(
    raw: torch.Tensor, sealed_keys: torch.Tensor, sealed_values: torch.Tensor, plan: PrefillPlan
) -> torch.Tensor:
    """What a prefill reads: stored pages, then its own raw ones; float32 `[2, kv_heads, length, head_dim]`.

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


def prefill_attention(query: torch.Tensor, history: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
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
