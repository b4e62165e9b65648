"""What transformers' own generate takes on the same model, dtype and machine.

It runs in a process of its own: two computing threads in one process slow each other down even when they take turns.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
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
        self._folder = str(folder)
        self._process = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))

    def tokens_per_s(self, token_ids: Sequence[int], num_tokens: int) -> float:
        """Decode speed of one stream behind a prompt: the time of all tokens less that of the first."""
        return self._process.submit(_tokens_per_s, self._folder, list(token_ids), num_tokens).result()


def _tokens_per_s(folder: str, token_ids: list[int], num_tokens: int) -> float:
    all_s, first_s = (_seconds(_load(folder), token_ids, count) for count in (num_tokens, 1))
    return (num_tokens - 1) / (all_s - first_s)


@lru_cache(maxsize=1)
def _load(folder: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)


def _seconds(model: Any, token_ids: list[int], num_tokens: int) -> float:
    prompt = torch.tensor([token_ids])
    started_s = time.perf_counter()
    model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=num_tokens,
        min_new_tokens=num_tokens,
        do_sample=False,
        pad_token_id=0,
    )
    return time.perf_counter() - started_s
