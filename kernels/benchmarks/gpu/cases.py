"""What is measured: head shapes, workloads, and the bytes that attention over them has to read.

Knows arithmetic only: nothing here needs a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from folio_kernels.codecs import codec_named
from folio_kernels.layout import PAGE_SIZE, PageLayout

SINK_PAGES = 1
"""First pages of every sequence that stay raw."""

CACHE_DTYPE = torch.bfloat16
"""What raw pages and the baselines hold."""

K = 1024


@dataclass(frozen=True)
class HeadShape:
    """The heads of one attention layer."""

    num_heads: int
    num_kv_heads: int
    head_dim: int

    @property
    def name(self) -> str:
        """Query heads, KV heads and head size, as in `32/8/128`."""
        return f"{self.num_heads}/{self.num_kv_heads}/{self.head_dim}"

    def layout(self, codec: str, num_layers: int = 1) -> PageLayout:
        """Pages of this shape."""
        return PageLayout(num_layers, self.num_kv_heads, self.head_dim, codec_named(codec), CACHE_DTYPE)

    def token_bytes(self) -> int:
        """Bytes of one token's keys and values, uncompressed, in one layer."""
        return 2 * self.num_kv_heads * self.head_dim * CACHE_DTYPE.itemsize


@dataclass(frozen=True)
class Workload:
    """Sequences that decode one token each; `lengths` are their histories' tokens, the new one included."""

    name: str
    lengths: tuple[int, ...]

    @property
    def is_ragged(self) -> bool:
        """Whether histories differ in length."""
        return len(set(self.lengths)) > 1


SHAPES = (
    HeadShape(32, 8, 128),
    HeadShape(64, 8, 128),
    HeadShape(32, 4, 128),
    HeadShape(32, 32, 128),
    HeadShape(9, 3, 64),
)


def uniform(batch: int, context_k: int) -> Workload:
    """`batch` sequences of `context_k` times 1,024 tokens."""
    return Workload(f"{batch}x{context_k}k", (context_k * K,) * batch)


def ragged(batch: int, shortest_k: int, longest_k: int) -> Workload:
    """Lengths in even steps of their logarithm, none of them a whole number of pages but the two ends."""
    factor = (longest_k / shortest_k) ** (1 / (batch - 1))
    lengths = tuple(round(shortest_k * K * factor**index) for index in range(batch))
    return Workload(f"ragged {shortest_k}k-{longest_k}k", lengths)


WORKLOADS = (
    uniform(1, 4),
    uniform(1, 32),
    uniform(1, 128),
    uniform(16, 32),
    uniform(64, 8),
    uniform(128, 2),
    ragged(16, 1, 64),
)

GOAL_SHAPE, GOAL_WORKLOAD = SHAPES[0], WORKLOADS[3]
"""Where the goals are set."""


def num_stored_pages(length: int) -> int:
    """Pages that a sequence's newest token reads as they are stored: all before its own."""
    return (length - 1) // PAGE_SIZE


def decode_bytes(shape: HeadShape, workload: Workload, codec: str) -> int:
    """Bytes of keys and values that one decode step reads in one layer: sealed pages, sinks and the open page's tokens.

    Queries, outputs and page tables are left out: they are the same for all.
    """
    layout, total = shape.layout(codec), 0
    for length in workload.lengths:
        stored = num_stored_pages(length)
        sealed = max(0, stored - SINK_PAGES)
        raw_tokens = length - sealed * PAGE_SIZE
        total += sealed * layout.sealed_page_bytes + raw_tokens * shape.token_bytes()
    return total


def uncompressed_bytes(shape: HeadShape, workload: Workload) -> int:
    """Bytes that the same step reads without compression."""
    return sum(workload.lengths) * shape.token_bytes()
