"""Copies whole pages between the pool and a contiguous buffer, many pages in one launch.

The buffer may lie in the GPU's memory or, pinned, in the host's, where the GPU reads and writes it across the bus: so a
tier's pages leave in one launch, ordered with the kernels that wrote them, and nothing is staged. A page is bytes here,
copied in words: raw and sealed pages are the same to it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

BLOCK_WORDS = 2048
"""64-bit words that one program copies: 16 KiB, sixteen bytes a thread at a time."""


@triton.jit
def copy_pages_kernel(p_pages, p_page_ids, p_buffer, page_words, TO_BUFFER: tl.constexpr, BLOCK: tl.constexpr):
    """One program per page and BLOCK of its words; pages and words are counted in 64 bits."""
    i_page = tl.program_id(1)
    o_word = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_word = o_word < page_words
    p_page = p_pages + tl.load(p_page_ids + i_page).to(tl.int64) * page_words + o_word
    p_slot = p_buffer + i_page.to(tl.int64) * page_words + o_word
    if TO_BUFFER:
        tl.store(p_slot, tl.load(p_page, mask=is_word), mask=is_word)
    else:
        tl.store(p_page, tl.load(p_slot, mask=is_word), mask=is_word)


def copy_pages(pages: torch.Tensor, page_ids: torch.Tensor, buffer: torch.Tensor, *, to_buffer: bool) -> None:
    """Copies whole pages of one kind.

    Args:
        pages: `pool.raw` or `pool.sealed`.
        page_ids: `[count]` int64 on the pool's device; no two are the same where pages are written.
        buffer: `[count, *page]` of the pool's dtype, contiguous, on the pool's device or in pinned host memory.
        to_buffer: from the pool into the buffer, or back.
    """
    assert buffer.is_contiguous() and buffer.shape == (len(page_ids), *pages.shape[1:])  # noqa: PT018 - one shape
    if len(page_ids) == 0:
        return
    words, slots = _words(pages), _words(buffer)
    page_words = words.shape[1]
    copy_pages_kernel[triton.cdiv(page_words, BLOCK_WORDS), len(page_ids)](
        words, page_ids, slots, page_words, TO_BUFFER=to_buffer, BLOCK=BLOCK_WORDS, enable_fp_fusion=False
    )


def _words(pages: torch.Tensor) -> torch.Tensor:
    """Pages as `[pages, words]` int64: records are a multiple of 16 bytes."""
    return pages.flatten(1).view(torch.int64)
