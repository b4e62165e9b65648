"""Keys are rounded by the queries that the model itself computes, wherever a text may stand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from folio_backend.query_calibration import FIRST_POSITIONS, measure_key_guide
from folio_kernels.key_guide import guide_for
from tests.backend.tiny_models import gpt2_config, llama_config, qwen2_config, random_ids, random_model

pytestmark = pytest.mark.usefixtures("one_thread")

NUM_TOKENS = 100


@torch.inference_mode()
def queries_of(model: PreTrainedModel, token_ids: list[int], first_positions: list[int]) -> torch.Tensor:
    """What the model's attention is asked with: float64 `[layers, kv_heads, queries, head_dim]`."""
    heard: dict[int, list[torch.Tensor]] = {}

    def listen(module: Any, query: torch.Tensor, key: torch.Tensor, *rest: Any, **arguments: Any) -> Any:
        grouped = query[0].unflatten(0, (key.shape[1], -1)).flatten(1, 2)
        heard.setdefault(module.layer_idx, []).append(grouped.double())
        return sdpa_attention_forward(module, query, key, *rest, **arguments)

    AttentionInterface.register("listen", listen)
    model.set_attn_implementation("listen")
    for first in first_positions:
        positions = torch.arange(first, first + len(token_ids)).unsqueeze(0)
        model(input_ids=torch.tensor([token_ids]), position_ids=positions, use_cache=False)
    return torch.stack([torch.cat(parts, 1) for _, parts in sorted(heard.items())])


@pytest.mark.parametrize("config", [llama_config(), gpt2_config(), qwen2_config()], ids=lambda it: it.model_type)
def test_the_guide_is_the_models_own_queries(config: PreTrainedConfig) -> None:
    model, token_ids = random_model(config), random_ids(NUM_TOKENS)
    positions = [first for first in FIRST_POSITIONS if first + NUM_TOKENS <= config.max_position_embeddings]
    assert 1 < len(positions) < len(FIRST_POSITIONS)
    queries = queries_of(model, token_ids, positions)
    expected = guide_for(queries.mean(2), queries.var(2, correction=0))
    found = measure_key_guide(model, token_ids)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_a_model_of_few_positions_is_heard_once() -> None:
    model, token_ids = random_model(llama_config(max_position_embeddings=NUM_TOKENS)), random_ids(NUM_TOKENS)
    queries = queries_of(model, token_ids, [0])
    found = measure_key_guide(model, token_ids)
    assert (found[..., 0, :] - queries.mean(2)).abs().max() < 1e-4
