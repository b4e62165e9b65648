"""Layers with codecs of their own compute what each would in a pool of its codec alone, on every path."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from folio_kernels.codecs import CODECS
from folio_kernels.cpu_operations import CpuOperations
from folio_kernels.layout import PAGE_SIZE, PageLayout
from folio_kernels.mixed_operations import MixedOperations
from folio_kernels.mixed_pool import MixedLayout, MixedPool, layout_of, pool_of
from folio_kernels.operations import Operations, ReferenceOperations, operations_for
from folio_kernels.pool import PagePool
from folio_kernels.triton_operations import TritonOperations
from tests.kernels.paged_histories import on_device, random_batch, random_pool

NAMES = ("k8v4", "int4", "none", "int4")
KV_HEADS, HEAD_DIM, NUM_PAGES = 2, 64, 6

PATHS = {
    "reference": ReferenceOperations,
    "compiled": lambda pool: CpuOperations(pool, compiled=True),
    "without a compiler": lambda pool: CpuOperations(pool, compiled=False),
    "triton": TritonOperations,
}


def mixed_pool(device: torch.device | str = "cpu") -> MixedPool:
    pool = pool_of(
        layout_of([CODECS[name] for name in NAMES], KV_HEADS, HEAD_DIM, torch.float16), NUM_PAGES, NUM_PAGES, device
    )
    assert isinstance(pool, MixedPool)
    return pool


def place_of(pool: MixedPool, layer: int) -> tuple[PagePool, int]:
    """The part that holds a layer, and which of its layers it is."""
    members = [part.layers for part in pool.layout.parts]
    return next((part, own.index(layer)) for part, own in zip(pool.parts, members, strict=True) if layer in own)


@pytest.mark.parametrize("path", PATHS)
@torch.inference_mode()
def test_a_layer_computes_what_it_would_among_its_like(path: str, device: torch.device) -> None:
    make: Callable[[PagePool], Operations] = PATHS[path]  # type: ignore[assignment] # classes and functions alike
    pool = mixed_pool(device if path == "triton" else "cpu")
    mixed = MixedOperations(pool, [make(part) for part in pool.parts])
    for layer, name in enumerate(NAMES):
        alone = random_pool(name, num_pages=NUM_PAGES, num_layers=1, raw_dtype=torch.float16)
        part, local = place_of(pool, layer)
        part.raw[:, local], part.sealed[:, local] = alone.raw[:, 0], alone.sealed[:, 0]
        batch = random_batch(alone, [150], [1])
        operations = make(on_device(alone, pool.device))
        key, query = torch.randn((2, 1, 4, HEAD_DIM), dtype=torch.float16, device=pool.device)
        slot = torch.tensor([int(batch.open_pages[0, 0]) * PAGE_SIZE + 21])
        mixed.append(layer, key[:, :2], key[:, 2:], slot)
        operations.append(0, key[:, :2], key[:, 2:], slot)
        assert torch.equal(mixed.attend(layer, query, batch, 0.125), operations.attend(0, query, batch, 0.125))


def test_sealing_a_range_of_layers_leaves_the_others() -> None:
    pool = mixed_pool()
    operations = operations_for(pool, compiled=False)
    for part in pool.parts:
        part.raw.normal_()
    page = torch.tensor([3])
    operations.seal(slice(1, 3), page, page)
    places = [place_of(pool, layer) for layer in range(len(NAMES))]
    assert [bool(part.sealed[3, local].any()) for part, local in places] == [False, True, True, False]


def test_a_page_is_as_large_as_its_layers() -> None:
    layout = mixed_pool().layout
    alone = [PageLayout(1, KV_HEADS, HEAD_DIM, CODECS[name], torch.float16) for name in NAMES]
    for name in ("raw_page_bytes", "sealed_page_bytes", "fp16_page_bytes"):
        assert getattr(layout, name) == sum(getattr(each, name) for each in alone)


def test_all_layers_of_a_raw_page_are_copied() -> None:
    pool = mixed_pool()
    for part in pool.parts:
        part.raw.normal_()
    pool.copy_raw_page(2, 5)
    assert all(torch.equal(part.raw[5], part.raw[2]) for part in pool.parts)


def test_layers_of_one_codec_need_no_parts() -> None:
    assert layout_of([CODECS["int4"]] * 3, 1, 64, torch.float16) == PageLayout(3, 1, 64, CODECS["int4"], torch.float16)
    assert isinstance(layout_of([CODECS["int4"], CODECS["int8"]], 1, 64, torch.float16), MixedLayout)
