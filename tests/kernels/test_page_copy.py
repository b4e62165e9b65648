"""The copying kernel: whole pages, in the order asked for, there and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from folio_kernels.codecs import CODECS, codec_named
from folio_kernels.layout import PageLayout
from folio_kernels.page_copy import copy_pages
from folio_kernels.pool import PagePool
from tests.kernels.huge_memory import huge_tensor

NUM_PAGES = 7


def numbered_pages(kind: str, codec: str, device: torch.device) -> torch.Tensor:
    """A pool's pages of one kind; every 16-bit word of them is another one."""
    pool = PagePool(PageLayout(3, 2, 64, codec_named(codec), torch.float16), NUM_PAGES, NUM_PAGES, device)
    pages = pool.raw if kind == "raw" else pool.sealed
    words = pages.view(torch.int16)
    words.copy_(torch.arange(words.numel(), device=device).view_as(words) % 30011)
    return pages


@pytest.mark.parametrize("kind", ["raw", "sealed"])
@pytest.mark.parametrize("codec", CODECS)
@given(page_ids=st.lists(st.integers(0, NUM_PAGES - 1), max_size=NUM_PAGES, unique=True))
@settings(deadline=None, max_examples=5)
def test_copied_pages_come_back_as_they_were(codec: str, kind: str, device: torch.device, page_ids: list[int]) -> None:
    pages = numbered_pages(kind, codec, device)
    before, chosen = pages.clone(), torch.tensor(page_ids, dtype=torch.int64, device=device)
    buffer = torch.empty((len(page_ids), *pages.shape[1:]), dtype=pages.dtype, device=device)
    copy_pages(pages, chosen, buffer, to_buffer=True)
    assert torch.equal(buffer, before[chosen])
    pages[chosen] = 0
    copy_pages(pages, chosen, buffer, to_buffer=False)
    assert torch.equal(pages, before)


def test_pages_beyond_what_32_bits_count_are_copied(tmp_path: Path) -> None:
    page_bytes = 2**20
    pages = huge_tensor(tmp_path, (2**34 // page_bytes + 2, page_bytes), torch.uint8)
    assert pages[:-1].view(torch.int64).numel() > 2**31
    buffer = torch.randint(256, (1, page_bytes), dtype=torch.uint8)
    copy_pages(pages, torch.tensor([len(pages) - 1]), buffer, to_buffer=False)
    assert torch.equal(pages[-1], buffer[0])


@pytest.mark.gpu
def test_pinned_host_memory_is_read_and_written_in_place() -> None:
    pages = numbered_pages("sealed", "int4", torch.device("cuda"))
    chosen = torch.tensor([5, 2], device="cuda")
    buffer = torch.empty((2, *pages.shape[1:]), dtype=pages.dtype, pin_memory=True)
    copy_pages(pages, chosen, buffer, to_buffer=True)
    torch.cuda.synchronize()
    assert torch.equal(buffer, pages[chosen].cpu())
