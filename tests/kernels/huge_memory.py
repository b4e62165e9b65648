"""Memory beyond what 32 bits count, of which only what is touched takes room."""

from __future__ import annotations

import math
from pathlib import Path

import torch


def huge_tensor(folder: Path, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A tensor in a file with holes, which no machine is too small for."""
    size = math.prod(shape)
    path = str(folder / f"{size}.{dtype}")
    return torch.from_file(path, shared=True, size=size, dtype=dtype).view(shape)
