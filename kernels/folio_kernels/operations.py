"""The kernel interface: append, seal, attend and copy pages, on whichever device the pool lies.

`operations_for` is the one place that chooses between devices. Knows nothing of requests, sessions or why a page is
read.
"""

from __future__ import annotations

from typing import Protocol

import torch

from folio_kernels import reference
from folio_kernels.cpu_operations import CpuOperations
from folio_kernels.mixed_operations import MixedOperations
from folio_kernels.mixed_pool import AnyPool, MixedPool
from folio_kernels.pool import AttentionBatch, PagePool

ALL_LAYERS = slice(None)


class Operations(Protocol):
    """What every device offers on one pool."""

    @property
    def pool(self) -> AnyPool:
        """The pages operated on."""

    def append(self, layer: int, key: torch.Tensor, value: torch.Tensor, slots: torch.Tensor) -> None:
        """Writes new keys and values `[tokens, kv_heads, head_dim]` into raw pages."""

    def seal(self, layers: slice, raw_pages: torch.Tensor, sealed_pages: torch.Tensor) -> None:
        """Compresses full raw pages (int64 ids) into sealed ones in the given layers."""

    def attend(self, layer: int, query: torch.Tensor, batch: AttentionBatch, scale: float) -> torch.Tensor:
        """Attention of `[tokens, heads, head_dim]` queries over their histories by the page rule."""

    def warm_up(self, num_heads: int) -> None:
        """Compiles and runs every shape there is, so that no request waits for a compiler."""


class ReferenceOperations:
    """The plain reference on any device."""

    def __init__(self, pool: PagePool) -> None:
        self.pool = pool

    def append(self, layer: int, key: torch.Tensor, value: torch.Tensor, slots: torch.Tensor) -> None:
        """See `Operations.append`."""
        reference.append(self.pool, layer, key, value, slots)

    def seal(self, layers: slice, raw_pages: torch.Tensor, sealed_pages: torch.Tensor) -> None:
        """See `Operations.seal`."""
        reference.seal(self.pool, layers, raw_pages, sealed_pages)

    def attend(self, layer: int, query: torch.Tensor, batch: AttentionBatch, scale: float) -> torch.Tensor:
        """See `Operations.attend`."""
        return reference.attend(self.pool, layer, query, batch, scale)

    def warm_up(self, num_heads: int) -> None:
        """Nothing to compile."""


def operations_for(pool: AnyPool, *, compiled: bool) -> Operations:
    """The operations for the pool's device.

    Args:
        pool: the pages.
        compiled: compile the CPU path; needs a C++ compiler. Uncompiled it gives the same numbers but for rounding,
            slower, sequence by sequence.
    """
    if isinstance(pool, MixedPool):
        return MixedOperations(pool, [operations_for(part, compiled=compiled) for part in pool.parts])
    if pool.raw.device.type == "cpu":
        return CpuOperations(pool, compiled=compiled)
    if pool.raw.device.type == "cuda":
        from folio_kernels.triton_operations import TritonOperations  # noqa: PLC0415 - CPUs need no Triton

        return TritonOperations(pool)
    return ReferenceOperations(pool)
