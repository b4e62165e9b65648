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

from folio_backend.calibration import CalibrationOperations, layer_operations, read
from folio_kernels.codecs import CODECS, Codec
from folio_kernels.layout import PAGE_SIZE
from folio_kernels.operations import Operations
from folio_kernels.pool import AttentionBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LADDER = tuple(CODECS[name] for name in ("int4", "k8v4", "int8", "none"))
"""What a layer may get, narrowest first. The last one has no error to measure."""

ERROR_BOUND = 0.15
"""Largest change of a layer's attention output, as a share of it (root mean squares), that a codec may make.

int4 changes SmolLM2's layers by 2 to 9 %, random layers' by 1 to 7 %; where key biases ruin it, by 17 % (biases of 10)
to 47 % (of 300). The bound lies between.
"""


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


def measure_codecs(
    model: PreTrainedModel,
    token_ids: Sequence[int],
    sink_pages: int,
    cache_dtype: torch.dtype,
    key_guide: torch.Tensor | None = None,
) -> CodecChoice:
    """Reads the tokens, of which the first `CALIBRATION_TOKENS` count.

    Leaves the model's attention set to ours.

    Args:
        model: a causal LM that `model_check` accepts.
        token_ids: what it reads.
        sink_pages: first pages that stay raw.
        cache_dtype: of raw pages.
        key_guide: what 4-bit keys will be encoded by, see `PagePool`.
    """
    measuring = _MeasuringOperations(model, cache_dtype, sink_pages, key_guide)
    read(model, measuring, token_ids, sink_pages)
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


class _MeasuringOperations(CalibrationOperations):
    """Beside the uncompressed pages the same in each codec, whose attention is only compared.

    Attributes:
        errors: by layer, then by codec.
    """

    def __init__(
        self, model: PreTrainedModel, cache_dtype: torch.dtype, sink_pages: int, key_guide: torch.Tensor | None
    ) -> None:
        super().__init__(model)
        self.errors: dict[int, dict[str, float]] = {}
        self._model, self._cache_dtype, self._key_guide = model, cache_dtype, key_guide
        self._reads_sealed = slice((sink_pages + 1) * PAGE_SIZE, None)
        self._lossy: dict[str, Operations] = {}

    def append(self, layer: int, key: torch.Tensor, value: torch.Tensor, slots: torch.Tensor) -> None:
        super().append(layer, key, value, slots)
        guide = None if self._key_guide is None else self._key_guide[layer : layer + 1]
        self._lossy = {
            codec.name: layer_operations(self._model, codec, self._cache_dtype, guide) for codec in LADDER[:-1]
        }
        for operations in self._lossy.values():
            operations.append(0, key, value, slots)

    def seal(self, layers: slice, raw_pages: torch.Tensor, sealed_pages: torch.Tensor) -> None:
        super().seal(layers, raw_pages, sealed_pages)
        for operations in self._lossy.values():
            operations.seal(slice(0, 1), raw_pages, sealed_pages)

    def attend(self, layer: int, query: torch.Tensor, batch: AttentionBatch, scale: float) -> torch.Tensor:
        exact = super().attend(layer, query, batch, scale)
        self.errors[layer] = {
            name: _relative_error(
                operations.attend(0, query, batch, scale)[self._reads_sealed], exact[self._reads_sealed]
            )
            for name, operations in self._lossy.items()
        }
        return exact


def _relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Root mean square of the difference over that of what is expected; 0 where there is nothing."""
    if expected.numel() == 0:
        return 0.0
    expected = expected.float()
    return float((found.float() - expected).norm() / expected.norm().clamp_min(torch.finfo(torch.float32).tiny))
