"""Keys are encoded by the queries that the model itself computes, wherever a text may stand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from folio_backend.query_calibration import measure_key_guide, pieces_of
from folio_kernels.key_guide import guide_for
from tests.backend.tiny_models import (
    MAX_POSITIONS,
    gpt2_config,
    llama_config,
    qwen2_config,
    random_ids,
    random_model,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@torch.inference_mode()
def queries_of(model: PreTrainedModel, pieces: list[tuple[int, list[int]]]) -> torch.Tensor:
    """What the model's attention is asked with: float64 `[layers, kv_heads, queries, head_dim]`."""
    heard: dict[int, list[torch.Tensor]] = {}

    def listen(module: Any, query: torch.Tensor, key: torch.Tensor, *rest: Any, **arguments: Any) -> Any:
        grouped = query[0].unflatten(0, (key.shape[1], -1)).flatten(1, 2)
        heard.setdefault(module.layer_idx, []).append(grouped.double())
        return sdpa_attention_forward(module, query, key, *rest, **arguments)

    AttentionInterface.register("listen", listen)
    model.set_attn_implementation("listen")
    for first, token_ids in pieces:
        positions = torch.arange(first, first + len(token_ids)).unsqueeze(0)
        model(input_ids=torch.tensor([token_ids]), position_ids=positions, use_cache=False)
    return torch.stack([torch.cat(parts, 1) for _, parts in sorted(heard.items())])


@pytest.mark.parametrize("config", [llama_config(), gpt2_config(), qwen2_config()], ids=lambda it: it.model_type)
@pytest.mark.parametrize("num_tokens", [600, 100])
def test_the_guide_is_the_models_own_queries(config: PreTrainedConfig, num_tokens: int) -> None:
    model, token_ids = random_model(config), random_ids(num_tokens)
    queries = queries_of(model, pieces_of(token_ids, MAX_POSITIONS))
    expected = guide_for(queries.mean(2), queries.var(2, correction=0))
    found = measure_key_guide(model, token_ids)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_pieces_are_spread_over_the_positions_that_the_model_knows() -> None:
    tokens = list(range(1000))
    for max_tokens, last_start in ((MAX_POSITIONS, 1984), (10**6, 4032), (None, 4032), (64, 0)):
        pieces = pieces_of(tokens, max_tokens)
        assert [token for _, piece in pieces for token in piece] == tokens[:512]
        assert [first for first, _ in pieces][:: len(pieces) - 1] == [0, last_start]
    assert pieces_of(tokens, 10) == [(0, tokens[index : index + 10]) for index in range(0, 512, 64)]


def test_a_model_of_few_positions_is_heard() -> None:
    model, token_ids = random_model(llama_config(max_position_embeddings=20)), random_ids(100)
    queries = queries_of(model, pieces_of(token_ids, 20))
    assert (measure_key_guide(model, token_ids)[..., 0, :] - queries.mean(2)).abs().max() < 1e-4
