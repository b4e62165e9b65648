"""What all tests share: the real servers, where kernels run (the GPU, or the Triton language's interpreter), and draws.

Tests draw the same in every run, whatever ran before them: `--hypothesis-profile=explore` tries new examples.
"""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.server.fixtures"]

# How long an example takes is the machine's business.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeat", settings.get_profile("explore"), derandomize=True)
settings.load_profile("repeat")

if not torch.cuda.is_available():
    # Before anything imports the Triton language: its own functions, too, ask for it where they are defined.
    os.environ["TRITON_INTERPRET"] = "1"


LONGEST_FIRST = ("loadtests", "sweep", "docker", "server")
"""Folders whose files take longest: begun last, they would leave one worker to end alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the folders that take longest first, everything else behind them as it was."""
    items.sort(key=lambda item: item.path.parent.name not in LONGEST_FIRST)


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """What torch draws without a generator hangs on the test alone."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The device that kernels run on."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
