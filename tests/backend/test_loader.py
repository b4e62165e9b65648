"""A folder becomes an engine that answers, or a sentence that says why it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import MistralConfig

from folio_backend.config import Settings
from folio_backend.errors import ConfigurationError
from folio_backend.loader import load_engine
from tests.backend.engine_harness import Answer, text_request
from tests.backend.tiny_models import llama_config, save_model

pytestmark = pytest.mark.usefixtures("one_thread")


def settings_for(folder: Path, **parameters: str) -> Settings:
    return Settings.load({"task": "generate", "model": str(folder), "compile": "false", **parameters}, {})


@pytest.mark.parametrize("codec", ["none", "int8", "k8v4", "int4", "k4v2"])
def test_a_folder_is_served(codec: str, llama_folder: Path) -> None:
    progress: list[str] = []
    engine = load_engine(settings_for(llama_folder, codec=codec, max_memory_mb="16"), "cpu", progress.append)
    request, answer = text_request("the cat and the dog " * 10, max_tokens=5, ignore_eos=True), Answer()
    engine.submit(request, engine.parts.tokenizer.prompt(request), answer)
    engine.start()
    engine.drain()
    engine.stop()
    assert answer.error is None
    assert answer.responses[-1].num_output_tokens == (5,)
    assert progress
    engine.check_integrity()


def test_end_tokens_come_from_the_model_and_the_tokenizer(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", llama_config())
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 9]}))
    engine = load_engine(settings_for(folder, max_memory_mb="16"), "cpu", lambda _: None)
    assert engine.parts.tokenizer.eos_token_ids == {0, 5, 9}


def refuse_to_load(sentence: str) -> None:
    """Progress of a load that must not get as far as the weights."""
    raise AssertionError(sentence)


def test_a_model_that_cannot_be_served_is_refused(tmp_path: Path) -> None:
    config = MistralConfig(**llama_config().to_diff_dict() | {"sliding_window": 64, "model_type": "mistral"})
    folder = save_model(tmp_path / "model", config)
    with pytest.raises(ConfigurationError, match="sliding window of 64"):
        load_engine(settings_for(folder), "cpu", refuse_to_load)


def test_a_length_beyond_the_model_is_refused(llama_folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="max_model_length is 4096; allowed: at most the model's own 2048"):
        load_engine(settings_for(llama_folder, max_model_length="4096"), "cpu", refuse_to_load)


def test_a_cache_too_small_for_a_batch_is_refused(llama_folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="max_memory_mb is 1; a batch of 16 requests"):
        load_engine(settings_for(llama_folder, max_memory_mb="1"), "cpu", lambda _: None)
