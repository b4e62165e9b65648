"""Which codec each layer gets where the settings leave it open: `codec: auto`.

The model reads a short text over an uncompressed cache. Beside it each layer's attention is computed a second time
over each codec's pages, with the operations that will serve; what that changes decides. Knows layers by their number
and their attention's output, no architecture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

LADDER = tuple(CODECS[name] for name in ("int4", "k8v4", "int8", "none"))
"""What a layer may get, narrowest first. The last one has no error to measure."""

ERROR_BOUND = 0.15
"""Largest change of a layer's attention output, as a share of it (root mean squares), that a codec may make.

int4 changes SmolLM2's layers by 2 to 9 %, random layers' by 1 to 7 %; where key biases ruin it, by 17 % (biases of 10)
to 47 % (of 300). The bound lies between.
"""

CALIBRATION_TOKENS = 512
"""Eight pages: with one sink, most queries read several sealed ones. SmolLM2 takes three seconds for it on one core."""


@dataclass(frozen=True)
class CodecChoice:
    """What was measured, and what follows from it.

    Attributes:
        errors: of each layer, by codec: the change of its attention's output as a share of it.
    """

    errors: tuple[Mapping[str, float], ...]

    @property
    def codecs(self) -> tuple[Codec, ...]:
        """The narrowest codec for each layer that stays within the bound; an error that is no number does not."""
        return tuple(
            next((codec for codec in LADDER[:-1] if errors[codec.name] <= ERROR_BOUND), LADDER[-1])
            for errors in self.errors
        )

    def describe(self) -> str:
        """Which layers have which codec, and what the narrowest one would have done to them."""
        parts, narrowest = [], LADDER[0].name
        for codec in LADDER:
            layers = [layer for layer, chosen in enumerate(self.codecs) if chosen == codec]
            if layers:
                most = max(self.errors[layer][narrowest] for layer in layers)
                parts.append(f"{codec.name} for layers {_ranges(layers)} (with {narrowest}: up to {most:.1%})")
        return f"codec auto lets attention change by {ERROR_BOUND:.0%}: {'; '.join(parts)}"


@torch.inference_mode()
def measure_codecs(
    model: PreTrainedModel, token_ids: Sequence[int], sink_pages: int, cache_dtype: torch.dtype
) -> CodecChoice:
    """Reads the tokens, of which the first `CALIBRATION_TOKENS` count.

    Leaves the model's attention set to ours.

    Args:
        model: a causal LM that `model_check` accepts.
        token_ids: what it reads.
        sink_pages: first pages that stay raw.
        cache_dtype: of raw pages.
    """
    read = list(token_ids[:CALIBRATION_TOKENS])
    measuring = _MeasuringOperations(model, cache_dtype, len(read) // PAGE_SIZE + 1, sink_pages)
    cache = KVCache(PageStore(measuring.num_pages, LeastRecentlyUsed()), sink_pages)
    table = PageTable(prefix_keys=None)
    cache.extend(table, len(read))
    ModelRunner(model, measuring).run(build_step([StepSequence(table, read, wants_logits=True)]))
    return CodecChoice(tuple(errors for _, errors in sorted(measuring.errors.items())))


def _ranges(layers: Sequence[int]) -> str:
    """Ascending numbers, neighbours as ranges: `0, 2-5`."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and runs[-1][-1] == layer - 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


class _MeasuringOperations:
    """Attention over uncompressed pages, and beside it the same over each codec's, which is only compared.

    One sequence, one step: a layer's pages are done with when the next layer comes, so all share the pools' only layer.

    Attributes:
        pool: the uncompressed pages.
        num_pages: of each pool.
        errors: by layer, then by codec.
    """

    def __init__(self, model: PreTrainedModel, cache_dtype: torch.dtype, num_pages: int, sink_pages: int) -> None:
        self.num_pages = PageCount(num_pages, num_pages)
        self.errors: dict[int, dict[str, float]] = {}
        self._reads_sealed = slice((sink_pages + 1) * PAGE_SIZE, None)

        def operations(codec: Codec, raw_dtype: torch.dtype) -> Operations:
            layout = PageLayout(1, num_kv_heads(model.config), head_dim(model.config), codec, raw_dtype)
            return operations_for(PagePool(layout, num_pages, num_pages, model.device), compiled=False)

        self._exact = operations(CODECS["none"], model.dtype)
        self._lossy = {codec.name: operations(codec, cache_dtype) for codec in LADDER[:-1]}
        self.pool = self._exact.pool

    def append(self, layer: int, key: torch.Tensor, value: torch.Tensor, slots: torch.Tensor) -> None:
        del layer
        for operations in (self._exact, *self._lossy.values()):
            operations.append(0, key, value, slots)

    def seal(self, layers: slice, raw_pages: torch.Tensor, sealed_pages: torch.Tensor) -> None:
        del layers
        for operations in (self._exact, *self._lossy.values()):
            operations.seal(slice(0, 1), raw_pages, sealed_pages)

    def attend(self, layer: int, query: torch.Tensor, batch: AttentionBatch, scale: float) -> torch.Tensor:
        exact = self._exact.attend(0, query, batch, scale)
        self.errors[layer] = {
            name: _relative_error(
                operations.attend(0, query, batch, scale)[self._reads_sealed], exact[self._reads_sealed]
            )
            for name, operations in self._lossy.items()
        }
        return exact

    def warm_up(self, num_heads: int) -> None:
        """Nothing is compiled."""


def _relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Root mean square of the difference over that of what is expected; 0 where there is nothing."""
    if expected.numel() == 0:
        return 0.0
    expected = expected.float()
    return float((found.float() - expected).norm() / expected.norm().clamp_min(torch.finfo(torch.float32).tiny))
