"""Finds what 4-bit keys are to be encoded by: the mean and the spread of the queries that read them.

The model reads a short text in pieces, each by itself and at another position, because RoPE turns a query by where it
stands and the mean is to hold for long histories. Knows queries as attention gets them, no architecture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from folio_backend.calibration import CALIBRATION_TOKENS, CalibrationOperations, read
from folio_backend.model_check import max_positions, num_kv_heads
from folio_kernels.key_guide import guide_for
from folio_kernels.layout import PAGE_SIZE
from folio_kernels.pool import AttentionBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NUM_PIECES = CALIBRATION_TOKENS // PAGE_SIZE
"""A page each: what a piece reads of itself is raw."""
LONGEST_HISTORY = 4096
"""Tokens over which the pieces are spread, or all that the model knows positions of."""


def pieces_of(token_ids: Sequence[int], max_tokens: int | None) -> list[tuple[int, list[int]]]:
    """The text cut up, each piece with the position of its first token.

    Args:
        token_ids: the text; the first `CALIBRATION_TOKENS` count.
        max_tokens: how many positions the model knows; None if it does not say.
    """
    last_start = max(0, min(max_tokens or LONGEST_HISTORY, LONGEST_HISTORY) - PAGE_SIZE)
    pieces = [list(token_ids[index * PAGE_SIZE : (index + 1) * PAGE_SIZE][:max_tokens]) for index in range(NUM_PIECES)]
    return [(last_start * index // (NUM_PIECES - 1), piece) for index, piece in enumerate(pieces) if piece]


def measure_key_guide(model: PreTrainedModel, token_ids: Sequence[int]) -> torch.Tensor:
    """What each KV head's keys are encoded by: float32 `[layers, kv_heads, 2, head_dim]`, see `key_guide`.

    Args:
        model: a causal LM that `model_check` accepts; its attention is left set to ours.
        token_ids: what it reads, not empty; the first `CALIBRATION_TOKENS` count.
    """
    listening = _ListeningOperations(model)
    for first_position, piece in pieces_of(token_ids, max_positions(model.config)):
        read(model, listening, piece, sink_pages=0, first_position=first_position)
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
