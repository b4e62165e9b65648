"""Memory beyond what 32 bits count, of which only what is touched takes room."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from folio_kernels import reference
from folio_kernels.codecs import codec_named
from folio_kernels.layout import PageLayout
from folio_kernels.pool import RAW, SEALED, AttentionBatch, PagePool
from tests.kernels.paged_histories import NOTHING


def huge_tensor(folder: Path, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A tensor in a file with holes, which no machine is too small for."""
    size = math.prod(shape)
    path = str(folder / f"{size}.{dtype}")
    return torch.from_file(path, shared=True, size=size, dtype=dtype).view(shape)


def huge_history(folder: Path, num_new: int) -> tuple[PagePool, AttentionBatch]:
    """An int4 pool of layers 0 to 31, and 130 tokens in its last pages that only the last layer holds."""
    layout = PageLayout(32, 8, 128, codec_named("int4"), torch.float16)
    pool = PagePool(layout, 1, 1)
    num_raw, num_sealed = 2**32 // layout.raw_page_bytes + 3, 2**31 // layout.sealed_page_bytes + 2
    pool.raw = huge_tensor(folder, (num_raw, *pool.raw.shape[1:]), torch.float16)
    pool.sealed = huge_tensor(folder, (num_sealed, *pool.sealed.shape[1:]), torch.uint8)
    assert min(pool.raw[:-2].numel(), pool.sealed[:-1].numel()) > 2**31
    pool.raw[-2:, 31] = torch.randn((2, *pool.raw.shape[2:]))
    reference.seal(pool, slice(31, 32), torch.tensor([num_raw - 1]), torch.tensor([num_sealed - 1]))
    batch = AttentionBatch(
        query_starts=torch.tensor([0, num_new]),
        lengths=torch.tensor([130]),
        page_tables=torch.tensor([[num_raw - 1, num_sealed - 1]]),
        page_kinds=torch.tensor([[RAW, SEALED]]),
        open_pages=torch.tensor([[num_raw - 2]]),
        slots=NOTHING,
        seal_raw=NOTHING,
        seal_sealed=NOTHING,
    )
    return pool, batch
