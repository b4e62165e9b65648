"""Reads a short text before the model serves anybody, so that something can be measured on each layer's attention.

The text is one sequence in one step over an uncompressed cache. Knows how it runs; not what is measured, nor what
follows from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from folio_backend.cache.eviction import LeastRecentlyUsed
from folio_backend.cache.kv_cache import KVCache
from folio_backend.cache.page_store import PageCount, PageStore
from folio_backend.cache.page_table import PageTable
from folio_backend.model_check import head_dim, num_kv_heads
from folio_backend.model_runner import ModelRunner
from folio_backend.step import StepSequence, build_step
from folio_kernels.codecs import CODECS, Codec
from folio_kernels.layout import PAGE_SIZE, PageLayout
from folio_kernels.operations import Operations, operations_for
from folio_kernels.pool import AttentionBatch, PagePool

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CALIBRATION_TOKENS = 512
"""Eight pages: with one sink, most queries read several sealed ones."""


def layer_operations(
    model: PreTrainedModel, codec: Codec, raw_dtype: torch.dtype, key_guide: torch.Tensor | None = None
) -> Operations:
    """Operations on a pool that holds one layer of `CALIBRATION_TOKENS`, on the model's device."""
    layout = PageLayout(1, num_kv_heads(model.config), head_dim(model.config), codec, raw_dtype)
    num_pages = CALIBRATION_TOKENS // PAGE_SIZE + 1
    return operations_for(PagePool(layout, num_pages, num_pages, model.device, key_guide), compiled=False)


class CalibrationOperations:
    """Attention over uncompressed pages, to be measured by who inherits from it.

    A layer's pages are done with when the next layer comes, so all layers share the pool's only one.

    Attributes:
        pool: the pages.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._exact = layer_operations(model, CODECS["none"], model.dtype)
        self.pool = self._exact.pool

    def append(self, layer: int, key: torch.Tensor, value: torch.Tensor, slots: torch.Tensor) -> None:
        """See `Operations.append`."""
        del layer
        self._exact.append(0, key, value, slots)

    def seal(self, layers: slice, raw_pages: torch.Tensor, sealed_pages: torch.Tensor) -> None:
        """See `Operations.seal`."""
        del layers
        self._exact.seal(slice(0, 1), raw_pages, sealed_pages)

    def attend(self, layer: int, query: torch.Tensor, batch: AttentionBatch, scale: float) -> torch.Tensor:
        """See `Operations.attend`."""
        del layer
        return self._exact.attend(0, query, batch, scale)

    def warm_up(self, num_heads: int) -> None:
        """Nothing is compiled."""


@torch.inference_mode()
def read(
    model: PreTrainedModel,
    operations: CalibrationOperations,
    token_ids: Sequence[int],
    sink_pages: int,
    first_position: int = 0,
) -> None:
    """Runs the model over the first `CALIBRATION_TOKENS` of the tokens; leaves its attention set to ours.

    Args:
        model: a causal LM that `model_check` accepts.
        operations: what its attention becomes.
        token_ids: what it reads.
        sink_pages: first pages that stay raw.
        first_position: where the model takes the text to begin; nothing precedes it.
    """
    count = operations.pool.num_raw_pages
    cache = KVCache(PageStore(PageCount(count, count), LeastRecentlyUsed()), sink_pages)
    tokens, table = list(token_ids[:CALIBRATION_TOKENS]), PageTable(prefix_keys=None)
    cache.extend(table, len(tokens))
    step = build_step([StepSequence(table, tokens, wants_logits=True)])
    ModelRunner(model, operations).run(replace(step, positions=step.positions + first_position))
