"""Random histories in a shuffled pool, for tests of attention."""

from __future__ import annotations

import random

import torch

from folio_kernels import reference
from folio_kernels.codecs import codec_named
from folio_kernels.layout import PAGE_SIZE, PageLayout
from folio_kernels.pool import RAW, SEALED, AttentionBatch, PagePool

NOTHING = torch.empty(0, dtype=torch.int64)


def random_pool(
    codec: str,
    *,
    num_pages: int,
    num_kv_heads: int = 2,
    head_dim: int = 64,
    num_layers: int = 2,
    raw_dtype: torch.dtype = torch.float32,
    key_guide: torch.Tensor | None = None,
) -> PagePool:
    """A pool whose every page holds something: sealed page i is raw page i, compressed."""
    layout = PageLayout(num_layers, num_kv_heads, head_dim, codec_named(codec), raw_dtype)
    pool = PagePool(layout, num_pages, num_pages, key_guide=key_guide)
    pool.raw.copy_(torch.randn(pool.raw.shape, generator=torch.Generator().manual_seed(num_pages)))
    every_page = torch.arange(num_pages)
    reference.seal(pool, slice(None), every_page, every_page)
    return pool


def on_device(pool: PagePool, device: torch.device) -> PagePool:
    """The same pages on another device."""
    moved = PagePool(pool.layout, pool.num_raw_pages, pool.num_sealed_pages, device)
    moved.raw.copy_(pool.raw)
    moved.sealed.copy_(pool.sealed)
    return moved


def random_batch(pool: PagePool, lengths: list[int], num_new: list[int], sink_pages: int = 1) -> AttentionBatch:
    """Histories of the given lengths over pages in random order; no page serves two purposes."""
    order = random.Random(len(lengths))
    free_raw = order.sample(range(pool.num_raw_pages), pool.num_raw_pages)
    free_sealed = order.sample(range(pool.num_sealed_pages), pool.num_sealed_pages)
    tables, kinds, open_pages = [], [], []
    for length, new in zip(lengths, num_new, strict=True):
        pages = [
            (free_raw.pop(), RAW) if index < sink_pages else (free_sealed.pop(), SEALED)
            for index in range(length // PAGE_SIZE)
        ]
        touched = range((length - new) // PAGE_SIZE, (length - 1) // PAGE_SIZE + 1)
        open_pages.append(
            [pages[page][0] if page < min(sink_pages, len(pages)) else free_raw.pop() for page in touched]
        )
        tables.append([page for page, _ in pages])
        kinds.append([kind for _, kind in pages])
    return AttentionBatch(
        query_starts=torch.tensor([0, *num_new]).cumsum(0).int(),
        lengths=torch.tensor(lengths, dtype=torch.int32),
        page_tables=_matrix(tables),
        page_kinds=_matrix(kinds),
        open_pages=_matrix(open_pages),
        slots=NOTHING,
        seal_raw=NOTHING,
        seal_sealed=NOTHING,
    )


def _matrix(rows: list[list[int]]) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [0] * (width - len(row)) for row in rows], dtype=torch.int32)
