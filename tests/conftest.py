"""What all tests share: the real servers, and where kernels run: the GPU, or the Triton language's interpreter."""

from __future__ import annotations

import os

import pytest
import torch

pytest_plugins = ["tests.server.fixtures"]

if not torch.cuda.is_available():
    # Before anything imports the Triton language: its own functions, too, ask for it where they are defined.
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The device that kernels run on."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
