"""Page pools full of histories, as a running server has them: pages in random order, the newest token appended."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from folio_kernels.key_guide import guide_for
from folio_kernels.layout import PAGE_SIZE, PageLayout
from folio_kernels.operations import ALL_LAYERS, Operations, operations_for
from folio_kernels.pool import RAW, SEALED, AttentionBatch, PagePool

from .cases import CACHE_DTYPE, SINK_PAGES, HeadShape, Workload, num_stored_pages

SEALED_AT_ONCE = 1024
"""Pages sealed in one launch while a pool is filled."""


@dataclass(frozen=True)
class History:
    """Operations on a filled pool, and a step over it: `query`, `key`, `value` are `[tokens, heads, head_dim]`."""

    operations: Operations
    batch: AttentionBatch
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor


def decode_history(shape: HeadShape, workload: Workload, codec: str, device: torch.device) -> History:
    """Every sequence of the workload with one new token."""
    return build_history(shape, workload.lengths, [1] * len(workload.lengths), codec, device)


def build_history(
    shape: HeadShape,
    lengths: tuple[int, ...],
    num_new: list[int],
    codec: str,
    device: torch.device,
    *,
    compiled: bool = True,
) -> History:
    """Sequences of the given lengths, of which the last `num_new` tokens are this step's.

    `compiled` matters on a CPU alone, see `operations_for`.
    """
    plan = _plan(lengths, num_new)
    pool = served_pool(shape.layout(codec), plan.num_raw, plan.num_sealed, device)
    operations = operations_for(pool, compiled=compiled)
    _fill(pool, operations)
    heads = (shape.num_heads, shape.num_kv_heads, shape.num_kv_heads)
    step = [torch.randn((sum(num_new), count, shape.head_dim), dtype=CACHE_DTYPE, device=device) for count in heads]
    return History(operations, plan.batch(device), *step)


def served_pool(layout: PageLayout, num_raw: int, num_sealed: int, device: torch.device) -> PagePool:
    """A pool that is written as a server's is: 4-bit keys by a guide, here that of random queries."""
    shape = (layout.num_layers, layout.num_kv_heads, layout.head_dim)
    return PagePool(layout, num_raw, num_sealed, device, guide_for(torch.randn(shape), torch.ones(shape)))


@dataclass(frozen=True)
class _Plan:
    """Which pages the sequences have; page ids in random order."""

    lengths: tuple[int, ...]
    num_new: list[int]
    tables: list[list[int]]
    kinds: list[list[int]]
    open_pages: list[list[int]]
    num_raw: int
    num_sealed: int

    def batch(self, device: torch.device) -> AttentionBatch:
        seals = [seal for sequence in range(len(self.lengths)) for seal in self._seals(sequence)]
        slots = [slot for sequence in range(len(self.lengths)) for slot in self._slots(sequence)]
        starts = torch.tensor([0, *self.num_new]).cumsum(0)
        tensors = {
            "query_starts": starts.int(),
            "lengths": torch.tensor(self.lengths, dtype=torch.int32),
            "page_tables": _rectangle(self.tables),
            "page_kinds": _rectangle(self.kinds),
            "open_pages": _rectangle(self.open_pages),
            "slots": torch.tensor(slots),
            "seal_raw": torch.tensor([raw for raw, _ in seals], dtype=torch.int64),
            "seal_sealed": torch.tensor([sealed for _, sealed in seals], dtype=torch.int64),
        }
        return AttentionBatch(**{name: tensor.to(device) for name, tensor in tensors.items()})

    def _first_page(self, sequence: int) -> int:
        return (self.lengths[sequence] - self.num_new[sequence]) // PAGE_SIZE

    def _slots(self, sequence: int) -> list[int]:
        first, pages = self._first_page(sequence), self.open_pages[sequence]
        positions = range(self.lengths[sequence] - self.num_new[sequence], self.lengths[sequence])
        return [pages[position // PAGE_SIZE - first] * PAGE_SIZE + position % PAGE_SIZE for position in positions]

    def _seals(self, sequence: int) -> list[tuple[int, int]]:
        """The pages that a prefill fills and seals; a decode step seals after its attention, with all layers."""
        if self.num_new[sequence] == 1:
            return []
        first = self._first_page(sequence)
        full = range(max(first, SINK_PAGES), self.lengths[sequence] // PAGE_SIZE)
        return [(self.open_pages[sequence][page - first], self.tables[sequence][page]) for page in full]


def _plan(lengths: tuple[int, ...], num_new: list[int]) -> _Plan:
    touched = [
        (length - 1) // PAGE_SIZE - (length - new) // PAGE_SIZE + 1
        for length, new in zip(lengths, num_new, strict=True)
    ]
    num_raw = SINK_PAGES * len(lengths) + sum(touched)
    num_sealed = sum(length // PAGE_SIZE for length in lengths)
    free_raw, free_sealed = torch.randperm(num_raw).tolist(), torch.randperm(num_sealed).tolist()
    tables, kinds, open_pages = [], [], []
    for length, new, count in zip(lengths, num_new, touched, strict=True):
        num_pages = max(length // PAGE_SIZE, num_stored_pages(length))
        is_sink = [page < SINK_PAGES for page in range(num_pages)]
        tables.append([free_raw.pop() if sink else free_sealed.pop() for sink in is_sink])
        kinds.append([RAW if sink else SEALED for sink in is_sink])
        first = (length - new) // PAGE_SIZE
        open_pages.append(
            [
                tables[-1][page] if page < min(SINK_PAGES, num_pages) else free_raw.pop()
                for page in range(first, first + count)
            ]
        )
    return _Plan(lengths, num_new, tables, kinds, open_pages, num_raw, num_sealed)


def _fill(pool: PagePool, operations: Operations) -> None:
    """Noise in every raw page, and the same noise compressed in every sealed one."""
    pool.raw.normal_()
    raw, sealed = (torch.arange(count, device=pool.raw.device) for count in (pool.num_raw_pages, pool.num_sealed_pages))
    for pages in sealed.split(SEALED_AT_ONCE):
        operations.seal(ALL_LAYERS, raw[pages % len(raw)], pages)


def _rectangle(rows: list[list[int]]) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [0] * (width - len(row)) for row in rows], dtype=torch.int32)
