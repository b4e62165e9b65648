"""The operations on a mixed pool: each layer's are carried out on the part that holds it.

Knows which layer is which one of its part. What is computed, and on which device, is the parts' operations'.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from folio_kernels.mixed_pool import MixedPool
from folio_kernels.pool import AttentionBatch

if TYPE_CHECKING:
    from folio_kernels.operations import Operations


class MixedOperations:
    """See `operations.Operations`.

    Args:
        pool: the pages.
        parts: the operations on each of the pool's parts, in their order.
    """

    def __init__(self, pool: MixedPool, parts: Sequence[Operations]) -> None:
        self.pool = pool
        self._parts = tuple(parts)
        self._places = {
            layer: (operations, local)
            for operations, part in zip(parts, pool.layout.parts, strict=True)
            for local, layer in enumerate(part.layers)
        }

    def append(self, layer: int, key: torch.Tensor, value: torch.Tensor, slots: torch.Tensor) -> None:
        """See `Operations.append`."""
        operations, local = self._places[layer]
        operations.append(local, key, value, slots)

    def seal(self, layers: slice, raw_pages: torch.Tensor, sealed_pages: torch.Tensor) -> None:
        """See `Operations.seal`."""
        first, end, _ = layers.indices(len(self._places))
        for operations, part in zip(self._parts, self.pool.layout.parts, strict=True):
            local = slice(bisect_left(part.layers, first), bisect_left(part.layers, end))
            if local.start < local.stop:
                operations.seal(local, raw_pages, sealed_pages)

    def attend(self, layer: int, query: torch.Tensor, batch: AttentionBatch, scale: float) -> torch.Tensor:
        """See `Operations.attend`."""
        operations, local = self._places[layer]
        return operations.attend(local, query, batch, scale)

    def warm_up(self, num_heads: int) -> None:
        """See `Operations.warm_up`."""
        for operations in self._parts:
            operations.warm_up(num_heads)
