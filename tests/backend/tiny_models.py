"""Tiny random Hugging Face models and a byte-level tokenizer with a chat template, saved as real folders.

Their weights are drawn wider than a trained model starts with, so that every token of a history shows in the logits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

END_OF_TEXT = "<|endoftext|>"
MAX_POSITIONS = 2048
HEAD_DIM = 64

_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}{{ raise_exception('unknown role') }}{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_TRAINING_TEXT = ["the cat and the dog went to the market; they and then the others were there", "she sells sea shells"]


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE: every byte is a token, a few pairs are merged, three tokens are special."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=[END_OF_TEXT, "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_TRAINING_TEXT, trainer)
    made: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe, eos_token=END_OF_TEXT, chat_template=_CHAT_TEMPLATE
    )
    return made


def llama_config(**changes: Any) -> LlamaConfig:
    """Rotary positions, three query heads on one KV head, as SmolLM2 has it."""
    settings: dict[str, Any] = {
        "vocab_size": 304,
        "hidden_size": 192,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "max_position_embeddings": MAX_POSITIONS,
        "tie_word_embeddings": True,
        "initializer_range": 0.08,
        "bos_token_id": None,
        "eos_token_id": 0,
    }
    return LlamaConfig(**settings | changes)


def gpt2_config() -> GPT2Config:
    """Learned positions, no rotary ones, as many KV heads as query heads."""
    return GPT2Config(
        vocab_size=304,
        n_embd=128,
        n_layer=2,
        n_head=2,
        n_positions=MAX_POSITIONS,
        initializer_range=0.08,
        bos_token_id=0,
        eos_token_id=0,
    )


def qwen2_config(num_hidden_layers: int = 2) -> Qwen2Config:
    """Rotary positions, biases, four query heads on one KV head."""
    return Qwen2Config(
        vocab_size=304,
        hidden_size=256,
        intermediate_size=256,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=4,
        num_key_value_heads=1,
        max_position_embeddings=MAX_POSITIONS,
        initializer_range=0.08,
        bos_token_id=None,
        eos_token_id=0,
    )


def biased_model() -> PreTrainedModel:
    """A Qwen2 of four layers, the first and last of which have key biases that 4 bits cannot bear.

    RoPE turns a bias with the position, so over a page its channel swings by twice the bias, and sixteen steps of that
    are wider than all that tells one key from another.
    """
    model = random_model(qwen2_config(num_hidden_layers=4))
    for layer in (0, 3):
        torch.nn.init.constant_(model.model.layers[layer].self_attn.k_proj.bias, 100.0)
    return model


def random_model(config: PreTrainedConfig) -> PreTrainedModel:
    """A model of that configuration in evaluation mode; the same weights every time."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    model.eval()  # type: ignore[no-untyped-call]
    return model


def save_model(folder: Path, config: PreTrainedConfig) -> Path:
    """A random model as a folder."""
    return save(folder, random_model(config))


def save(folder: Path, model: PreTrainedModel) -> Path:
    """A folder of safetensors, configuration and tokenizer."""
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def random_ids(count: int, seed: int = 0) -> list[int]:
    """Ordinary tokens, the same ones for the same arguments."""
    generator = torch.Generator().manual_seed(10_000 * seed + count)
    token_ids: list[int] = torch.randint(3, 300, (count,), generator=generator).tolist()
    return token_ids
