"""The pool's memory and one step's view of it: what every operation takes.

`PagePool` owns the two tensors, `AttentionBatch` says which pages one step reads and writes. Neither knows why a page
is where it is: that is the backend's cache.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from folio_kernels.layout import PAGE_SIZE, PageLayout

RAW, SEALED = 0, 1
"""Page kinds, as `AttentionBatch.page_kinds` holds them."""


class PagePool:
    """The memory of all pages of one layer group on one device.

    Attributes:
        layout: the shape of a page.
        raw: `[num_raw_pages, layers, kv_heads, 2, page_size, head_dim]` in the cache's dtype.
        sealed: `[num_sealed_pages, layers, kv_heads, record_bytes]` uint8.
        rotation: `[head_dim, head_dim]` float32, orthonormal and symmetric; None where the codec rotates nothing.
        key_guide: `[layers, kv_heads, 2, head_dim]` float32, what 4-bit keys are encoded by (see `key_guide`); None
            where each goes to the nearest code, or has more bits.
    """

    def __init__(
        self,
        layout: PageLayout,
        num_raw_pages: int,
        num_sealed_pages: int,
        device: torch.device | str = "cpu",
        key_guide: torch.Tensor | None = None,
    ) -> None:
        self.layout = layout
        if key_guide is not None:
            key_guide = key_guide.to(device).contiguous() if layout.codec.guides_keys else None
        self.key_guide = key_guide
        heads = (layout.num_layers, layout.num_kv_heads)
        # Zeros, not empty: what a masked slot holds is multiplied by zero, and zero times NaN is NaN.
        self.raw = torch.zeros(
            (num_raw_pages, *heads, 2, PAGE_SIZE, layout.head_dim), dtype=layout.raw_dtype, device=device
        )
        self.sealed = torch.zeros(
            (num_sealed_pages, *heads, layout.sealed_record_bytes), dtype=torch.uint8, device=device
        )
        self.rotation = hadamard(layout.head_dim, self.raw.device) if layout.codec.rotates_values else None

    @property
    def device(self) -> torch.device:
        """Where the pages lie."""
        return self.raw.device

    @property
    def num_raw_pages(self) -> int:
        """Raw pages in all."""
        return self.raw.shape[0]

    @property
    def num_sealed_pages(self) -> int:
        """Sealed pages in all."""
        return self.sealed.shape[0]

    def sealed_field(self, name: str) -> torch.Tensor:
        """One field of every sealed record: a view `[num_sealed_pages, layers, kv_heads, *field.shape]`."""
        field = self.layout.fields[name]
        part = self.sealed[..., field.offset : field.offset + field.num_bytes].view(field.dtype)
        return part.unflatten(-1, field.shape)

    def copy_raw_page(self, source: int, target: int) -> None:
        """Copies one raw page within the pool.

        On a CPU NumPy does it: torch would make a team of workers for the calling thread (see the CPU operations).
        """
        if self.raw.device.type == "cpu":
            elements = self.raw.view(torch.uint8).numpy()
            elements[target] = elements[source]
        else:
            self.raw[target].copy_(self.raw[source])


def hadamard(size: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """The normalised Sylvester Hadamard matrix: `[size, size]` float32, its own inverse; size is a power of two."""
    matrix = torch.ones((1, 1))
    while matrix.shape[0] < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return (matrix / size**0.5).to(device)


@dataclass(frozen=True)
class AttentionBatch:
    """The sequences of one step, flattened into one row of tokens.

    Sequence `s` owns the row's tokens `query_starts[s] : query_starts[s + 1]`; they are the last ones of its history
    of `lengths[s]` tokens. By the page rule a query at position `p` reads the keys and values of its own page
    `p // page_size` raw, from `open_pages`, and all earlier pages as they are stored, from `page_tables`.

    Attributes:
        query_starts: `[sequences + 1]` int32.
        lengths: `[sequences]` int32, this step's tokens included.
        page_tables: `[sequences, pages]` int32: the stored page of each full page of the history; the id counts
            within the pool of the page's kind. Entries past the last full page are not read.
        page_kinds: `[sequences, pages]` int32, `RAW` or `SEALED`; raw ones come first in a history.
        open_pages: `[sequences, touched]` int32: the raw page of each page that the step's tokens lie in, the
            first one being page `(lengths - new) // page_size`.
        slots: `[tokens]` int64: where each token's key and value go, `raw_page * page_size + offset`.
        seal_raw, seal_sealed: `[pages]` int64: the raw pages that this step fills and the sealed pages they become,
            sealed in every layer before its attention.
    """

    query_starts: torch.Tensor
    lengths: torch.Tensor
    page_tables: torch.Tensor
    page_kinds: torch.Tensor
    open_pages: torch.Tensor
    slots: torch.Tensor
    seal_raw: torch.Tensor
    seal_sealed: torch.Tensor

    @cached_property
    def num_new(self) -> list[int]:
        """Tokens that the step adds to each sequence."""
        starts: list[int] = self.query_starts.tolist()
        return [end - start for start, end in itertools.pairwise(starts)]


def warm_up_batch(num_new: int, stored_kinds: Sequence[int] = ()) -> AttentionBatch:
    """A batch to run before the pool serves anybody: one sequence, all of whose pages are the pool's first ones.

    Args:
        num_new: the tokens that the step adds; they fit into one page.
        stored_kinds: `RAW` or `SEALED` of each full page before them.
    """
    nothing = torch.empty(0, dtype=torch.int64)
    return AttentionBatch(
        query_starts=torch.tensor([0, num_new], dtype=torch.int32),
        lengths=torch.tensor([len(stored_kinds) * PAGE_SIZE + num_new], dtype=torch.int32),
        page_tables=torch.zeros((1, len(stored_kinds)), dtype=torch.int32),
        page_kinds=torch.tensor([list(stored_kinds)], dtype=torch.int32),
        open_pages=torch.zeros((1, 1), dtype=torch.int32),
        slots=torch.arange(num_new),
        seal_raw=nothing,
        seal_sealed=nothing,
    )
