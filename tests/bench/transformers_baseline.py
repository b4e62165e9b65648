"""What transformers' own generate takes on the same model, dtype and machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM

if TYPE_CHECKING:
    from pathlib import Path


class TransformersBaseline:
    """The model with transformers' own attention and cache.

    Args:
        folder: the model's folder; it is loaded in float32, as the engine does on a CPU.
    """

    def __init__(self, folder: Path) -> None:
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)

    def tokens_per_s(self, token_ids: Sequence[int], num_tokens: int) -> float:
        """Decode speed of one stream behind a prompt: the time of all tokens less that of the first."""
        return (num_tokens - 1) / (self._seconds(token_ids, num_tokens) - self._seconds(token_ids, 1))

    def _seconds(self, token_ids: Sequence[int], num_tokens: int) -> float:
        prompt = torch.tensor([list(token_ids)])
        started_s = time.perf_counter()
        self._model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=num_tokens,
            min_new_tokens=num_tokens,
            do_sample=False,
            pad_token_id=0,
        )
        return time.perf_counter() - started_s
