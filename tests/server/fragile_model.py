"""A tiny model that fails on one character, and a server's repository with it and the attention model."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.backend.tiny_models import llama_config, save_model, tokenizer
from tests.server.grpc_stream import MODEL

REPOSITORY = Path(__file__).parents[2] / "model_repository"
FATAL = "~"
"""A prompt that holds it gets logits that are no numbers."""

# So many that the check at load, with tokens drawn at random, does not come across the fatal one.
_VOCABULARY_SIZE = 20_000


def fragile_repository(folder: Path) -> Path:
    """A repository in `folder`: loads in seconds, compiles nothing."""
    repository = folder / "repository"
    shutil.copytree(REPOSITORY / "attention", repository / "attention")
    (repository / MODEL / "1").mkdir(parents=True)
    parameters = {"task": "generate", "model": save_fragile_model(folder / "model")}
    lines = [f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in parameters.items()]
    (repository / MODEL / "config.pbtxt").write_text("\n".join(['backend: "folio"', *lines]))
    return repository


def save_fragile_model(folder: Path) -> Path:
    """A folder to load; none of what it generates is fatal."""
    save_model(folder, llama_config(vocab_size=_VOCABULARY_SIZE, tie_word_embeddings=False))
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder)
    fatal_id, weights = tokenizer().convert_tokens_to_ids(FATAL), model.state_dict()
    weights["model.embed_tokens.weight"][fatal_id] = torch.nan
    weights["lm_head.weight"][fatal_id] = 0
    weights["lm_head.weight"][len(tokenizer()) :] = 0
    model.save_pretrained(folder)
    return folder
