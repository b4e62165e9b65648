"""`codec: auto` measures each layer, widens those that 4 bits ruin and no others, and says so."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from folio_backend import engine_state
from folio_backend.cache.page import PageKind, PageState
from folio_backend.codec_choice import ERROR_BOUND, CodecChoice, measure_codecs
from folio_backend.loader import load_engine
from folio_backend.page_format import PageFormat
from tests.backend.engine_harness import Answer, EngineHarness, EngineSize, text_request
from tests.backend.test_loader import settings_for
from tests.backend.tiny_models import biased_model, llama_config, random_ids, random_model, save

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def biased_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("biased"), biased_model())


def test_layers_whose_key_biases_ruin_4_bits_get_a_wider_codec(biased_folder: Path) -> None:
    progress: list[str] = []
    engine = load_engine(settings_for(biased_folder, codec="auto", max_memory_mb="16"), "cpu", progress.append)
    request, answer = text_request("the cat and the dog " * 40, max_tokens=5, ignore_eos=True), Answer()
    engine.submit(request, engine.parts.tokenizer.prompt(request), answer)
    engine.start()
    engine.drain()
    engine.stop()
    assert answer.error is None
    stats = engine_state.stats(engine, {}, 0)
    assert (stats["codec"], stats["layers_by_codec"]) == ("mixed", {"k8v4": [0, 3], "int4": [1, 2]})
    assert stats["bytes_per_token"] == 2 * 102 + 2 * 72  # the table in `layout`, head_dim 64
    assert stats["bytes_per_token_raw"] == stats["bytes_per_token_fp16"] == 4 * 256
    num_raw, num_sealed = (engine.parts.cache.store.count_states()[kind, PageState.CACHED] for kind in PageKind)
    assert num_sealed > 0
    assert stats["memory_usage_bytes"] == 64 * (num_raw * 4 * 256 + num_sealed * (2 * 102 + 2 * 72))
    assert any("int4 for layers 1-2" in line and "k8v4 for layers 0, 3" in line for line in progress)


def test_pages_of_other_layers_codecs_are_other_pages() -> None:
    model = random_model(llama_config())
    digests = [
        PageFormat(EngineHarness(model, EngineSize(codec=codec)).runner.operations.pool.layout, None).digest(model, 1)
        for codec in ("int4", "int4+int8", "int8+int4", "int4+int4")
    ]
    assert len(set(digests)) == 3
    assert digests[0] == digests[3]


def test_layers_that_bear_4_bits_all_get_them(llama_folder: Path) -> None:
    engine = load_engine(settings_for(llama_folder, codec="auto", max_memory_mb="16"), "cpu", lambda _: None)
    stats = engine_state.stats(engine, {}, 0)
    assert (stats["codec"], stats["layers_by_codec"]) == ("int4", {"int4": [0, 1]})


@pytest.mark.parametrize("sink_pages", [0, 2])
def test_wider_codecs_change_attention_less(sink_pages: int) -> None:
    choice = measure_codecs(random_model(llama_config()), random_ids(400), sink_pages, torch.float32)
    assert len(choice.errors) == 2
    for errors in choice.errors:
        assert 0 < errors["int8"] < errors["k8v4"] < errors["int4"] < ERROR_BOUND


def test_a_text_within_raw_pages_measures_nothing() -> None:
    choice = measure_codecs(random_model(llama_config()), random_ids(128), 1, torch.float16)
    assert {error for errors in choice.errors for error in errors.values()} == {0.0}


def test_the_narrowest_codec_within_the_bound_is_chosen() -> None:
    within, beyond = ERROR_BOUND, ERROR_BOUND * 1.01
    choice = CodecChoice(
        (
            {"int4": within, "k8v4": within, "int8": within},
            {"int4": beyond, "k8v4": within, "int8": within},
            {"int4": beyond, "k8v4": beyond, "int8": within},
            {"int4": beyond, "k8v4": beyond, "int8": beyond},
            {"int4": math.nan, "k8v4": math.nan, "int8": math.nan},
        )
    )
    assert [codec.name for codec in choice.codecs] == ["int4", "k8v4", "int8", "none", "none"]
