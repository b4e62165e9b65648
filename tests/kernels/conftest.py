"""Where kernels run in tests: on the GPU if there is one, else in the Triton language's interpreter."""

from __future__ import annotations

import os

import pytest
import torch

if not torch.cuda.is_available():
    # Before any kernel is imported: a kernel asks for it where it is defined.
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The device that kernels run on."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
