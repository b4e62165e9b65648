"""Tiny models, made once a session, and engines that are checked when their test is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from tests.backend.engine_harness import EngineHarness, EngineSize
from tests.backend.tiny_models import gpt2_config, llama_config, qwen2_config, random_model, save_model

NewEngine = Callable[..., EngineHarness]


@pytest.fixture(scope="session")
def llama() -> PreTrainedModel:
    """A tiny llama that keeps its own attention."""
    return random_model(llama_config())


@pytest.fixture(scope="session")
def gpt2() -> PreTrainedModel:
    """A tiny GPT-2 that keeps its own attention."""
    return random_model(gpt2_config())


@pytest.fixture(scope="session")
def qwen2() -> PreTrainedModel:
    """A tiny Qwen2 that keeps its own attention."""
    return random_model(qwen2_config())


@pytest.fixture(scope="session")
def served_llama() -> PreTrainedModel:
    """The same llama, for engines: they set its attention to theirs."""
    return random_model(llama_config())


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The llama as a folder to load."""
    return save_model(tmp_path_factory.mktemp("llama"), llama_config())


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny products are faster on one thread, and busy cores do not stall them."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture
def new_engine(served_llama: PreTrainedModel, one_thread: None) -> Iterator[NewEngine]:  # noqa: ARG001
    """Makes engines over the llama, `new_engine(**bounds)`; when the test ends, each is at rest and intact."""
    made: list[EngineHarness] = []

    def make(model: PreTrainedModel = served_llama, **bounds: int | str) -> EngineHarness:
        made.append(EngineHarness(model, EngineSize(**bounds)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for harness in made:
        harness.check_at_rest()
