"""Finds what keys of 4 bits are to be rounded by: the mean and the spread of the queries that read them.

The model reads a short text at several positions, because RoPE turns a query by where it stands and the mean is to hold
for long histories. Knows queries as attention gets them, no architecture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from folio_backend.calibration import CALIBRATION_TOKENS, CalibrationOperations, read
from folio_backend.model_check import num_kv_heads
from folio_kernels.key_guide import guide_for
from folio_kernels.pool import AttentionBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FIRST_POSITIONS = tuple(range(0, 8 * CALIBRATION_TOKENS, CALIBRATION_TOKENS))
"""Where the text begins, one reading each: histories of up to 4,096 tokens."""


def measure_key_guide(model: PreTrainedModel, token_ids: Sequence[int]) -> torch.Tensor:
    """What each KV head's keys are rounded by: float32 `[layers, kv_heads, 2, head_dim]`, see `key_guide`.

    Args:
        model: a causal LM that `model_check` accepts; its attention is left set to ours.
        token_ids: what it reads, within the model's positions; the first `CALIBRATION_TOKENS` count.
    """
    tokens = list(token_ids[:CALIBRATION_TOKENS])
    longest: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    listening = _ListeningOperations(model)
    for first_position in FIRST_POSITIONS:
        if longest is None or first_position + len(tokens) <= longest:
            read(model, listening, tokens, sink_pages=0, first_position=first_position)
    return listening.key_guide()


class _ListeningOperations(CalibrationOperations):
    """Counts queries, and sums them and their squares, by layer and KV head."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self._num_kv_heads = num_kv_heads(model.config)
        self._sums: dict[int, torch.Tensor] = {}
        self._num_queries: dict[int, int] = {}

    def attend(self, layer: int, query: torch.Tensor, batch: AttentionBatch, scale: float) -> torch.Tensor:
        # float64, so that a variance is no difference of rounded squares.
        queries = query.double().unflatten(1, (self._num_kv_heads, -1)).transpose(1, 2).flatten(0, 1)
        sums = torch.stack([queries.sum(0), queries.square().sum(0)])
        self._sums[layer] = self._sums[layer] + sums if layer in self._sums else sums
        self._num_queries[layer] = self._num_queries.get(layer, 0) + len(queries)
        return super().attend(layer, query, batch, scale)

    def key_guide(self) -> torch.Tensor:
        """Of what was heard."""
        means = torch.stack([self._sums[layer] / self._num_queries[layer] for layer in sorted(self._sums)])
        mean, square = means.unbind(1)
        return guide_for(mean, square - mean.square())
