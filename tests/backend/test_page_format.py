"""What is measured before a model is served, and what follows for the pages."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from folio_backend.loader import load_engine
from folio_backend.page_format import PageFormat, page_format
from folio_kernels.pool import PagePool
from tests.backend.test_loader import settings_for
from tests.backend.tiny_models import tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("codec", "is_measured"), [("none", False), ("int8", False), ("k8v4", False), ("k4v2", True)])
def test_only_keys_of_4_bits_are_measured_for(codec: str, *, is_measured: bool, llama_folder: Path) -> None:
    progress: list[str] = []
    model = AutoModelForCausalLM.from_pretrained(llama_folder)
    pages = page_format(model, tokenizer(), settings_for(llama_folder, codec=codec), progress.append)
    assert (pages.key_guide is not None) == is_measured
    assert progress == (["measuring the queries that keys are encoded for"] if is_measured else [])


def test_the_pool_rounds_by_what_was_measured(llama_folder: Path) -> None:
    settings = settings_for(llama_folder, codec="int4", max_memory_mb="16")
    guides = []
    for _ in range(2):
        pool = load_engine(settings, "cpu", lambda _: None).parts.runner.operations.pool
        assert isinstance(pool, PagePool)
        assert pool.key_guide is not None
        guides.append(pool.key_guide)
    assert guides[0].shape == (2, 1, 2, 64)
    assert torch.equal(*guides)


def test_pages_rounded_otherwise_are_other_pages(llama_folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(llama_folder)
    guided = page_format(model, tokenizer(), settings_for(llama_folder, codec="int4"), lambda _: None)
    nearest = PageFormat(guided.layout, None)
    assert guided.digest(model, 1) != nearest.digest(model, 1)
    assert guided.digest(model, 1) != guided.digest(model, 2)
