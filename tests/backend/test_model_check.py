"""Models that pages can serve pass; all others are refused in a sentence that names what stands in the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    DeepseekV3Config,
    Gemma2Config,
    Gemma3TextConfig,
    Lfm2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    StableLmConfig,
)

from folio_backend.errors import ConfigurationError
from folio_backend.model_check import check_by_trial, check_configuration
from tests.backend.tiny_models import gpt2_config, llama_config, qwen2_config, random_model

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL: dict[str, Any] = {
    "vocab_size": 304,
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
FULL = ["full_attention"] * 2
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0] * 32,
    "long_factor": [2.0] * 32,
    "rope_theta": 10_000.0,
    "original_max_position_embeddings": 128,
}

REFUSED: dict[str, tuple[Callable[[], PreTrainedConfig], str]] = {
    "hybrid with convolution": (lambda: Lfm2Config(**SMALL, layer_types=["conv", "full_attention"]), "kind conv"),
    "sliding window in some layers": (lambda: Gemma2Config(**SMALL), "kind sliding_attention"),
    "sliding window in all layers": (lambda: MistralConfig(**SMALL, sliding_window=99), "sliding window of 99"),
    "sliding window switched on": (
        lambda: Qwen2Config(**SMALL, use_sliding_window=True, sliding_window=77, max_window_layers=0),
        "sliding",
    ),
    "dynamic RoPE": (lambda: llama_config(rope_parameters=DYNAMIC), "type dynamic"),
    "longrope": (lambda: llama_config(rope_parameters=LONG), "type longrope"),
    "dynamic RoPE of a layer type": (
        lambda: Gemma3TextConfig(
            **SMALL,
            layer_types=FULL,
            sliding_window=None,
            rope_parameters={
                "full_attention": DYNAMIC,
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        ),
        "type dynamic",
    ),
    "unequal keys and values": (DeepseekV3Config, "keys and values differ in size"),
    "head_dim without kernels": (lambda: LlamaConfig(**{**SMALL, "head_dim": 32}), "head_dim is 32"),
}


@pytest.mark.parametrize("config", [llama_config, gpt2_config, qwen2_config], ids=["llama", "gpt2", "qwen2"])
def test_plain_decoders_pass(config: Callable[[], PreTrainedConfig]) -> None:
    check_configuration(config())
    check_by_trial(random_model(config()))


def test_a_model_with_an_unused_window_passes() -> None:
    check_configuration(Qwen2Config(**SMALL, use_sliding_window=False, sliding_window=77))
    check_configuration(MistralConfig(**SMALL, sliding_window=None))


@pytest.mark.parametrize("name", REFUSED)
def test_a_configuration_that_pages_cannot_serve_is_refused_by_name(name: str) -> None:
    config, sentence = REFUSED[name]
    with pytest.raises(ConfigurationError, match=sentence):
        check_configuration(config())


def _mix_neighbours(_module: nn.Module, _inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
    """What a short convolution does."""
    return output + 0.3 * nn.functional.pad(output, (0, 0, 1, 0))[:, :-1]


def test_a_model_whose_tokens_mix_outside_of_attention_is_refused() -> None:
    model = random_model(llama_config())
    model.get_submodule("model.layers.0.mlp").register_forward_hook(_mix_neighbours)
    with pytest.raises(ConfigurationError, match="mix outside of attention"):
        check_by_trial(model)


def test_attention_with_an_argument_that_would_be_ignored_is_refused() -> None:
    config = Gemma2Config(**SMALL, layer_types=FULL, attn_logit_softcapping=50.0)
    with pytest.raises(ConfigurationError, match=r"attention layer 0 is called with .*softcap"):
        check_by_trial(random_model(config))


def test_a_model_that_does_not_hand_arguments_to_its_attention_is_served() -> None:
    check_by_trial(random_model(StableLmConfig(**{**SMALL, "num_key_value_heads": 2})))


def test_a_layer_that_does_not_call_our_attention_is_refused() -> None:
    model = random_model(llama_config())

    def own(hidden_states: torch.Tensor, **_: object) -> tuple[torch.Tensor, None]:
        return hidden_states, None

    model.get_submodule("model.layers.1.self_attn").forward = own
    with pytest.raises(ConfigurationError, match=r"layers \[1\] do not call the attention"):
        check_by_trial(model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_passes_as_well(dtype: torch.dtype) -> None:
    model = random_model(llama_config())
    model.to(dtype=dtype)  # type: ignore[call-arg] # its decorator hides that it is a method
    check_by_trial(model)
