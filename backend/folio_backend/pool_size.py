"""How many raw and sealed pages a memory limit buys.

Knows the bytes of pages and how many raw ones a full batch needs; nothing of what is cached.
"""

from __future__ import annotations

from folio_backend.cache.page_store import PageCount
from folio_backend.errors import ConfigurationError
from folio_kernels.layout import PAGE_SIZE
from folio_kernels.mixed_pool import AnyLayout

SEALED_PER_RAW = 8
"""Sealed pages bought with each raw page beyond the batch's own: a conversation of some 600 tokens."""


def num_pages_within(
    layout: AnyLayout, limit_bytes: int, *, max_running: int, max_step_tokens: int, max_tokens: int | None
) -> PageCount:
    """The pages to allocate.

    Args:
        layout: the shape of a page.
        limit_bytes: what all pages together may take.
        max_running: sequences that run at once; each has an open page and may begin another.
        max_step_tokens: tokens of a step, all of which may be a prefill's.
        max_tokens: a further bound, on tokens in sealed pages.

    Raises:
        ConfigurationError: not even one batch fits; the text says how much it needs.
    """
    for_batch = 2 * max_running + -(-max_step_tokens // PAGE_SIZE)
    bundle_bytes = layout.raw_page_bytes + SEALED_PER_RAW * layout.sealed_page_bytes
    bundles = (limit_bytes - for_batch * layout.raw_page_bytes) // bundle_bytes
    if bundles < 1:
        need_mb = -(-(for_batch * layout.raw_page_bytes + bundle_bytes) // 2**20)
        raise ConfigurationError(
            f"max_memory_mb is {limit_bytes // 2**20}; a batch of {max_running} requests and {max_step_tokens} step "
            f"tokens needs {need_mb} MB of pages; allowed: at least {need_mb}, or a smaller batch"
        )
    sealed = bundles * SEALED_PER_RAW
    if max_tokens is not None:
        sealed = min(sealed, max(1, max_tokens // PAGE_SIZE))
    return PageCount(raw=for_batch + bundles, sealed=sealed)
