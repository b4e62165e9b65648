"""Small caches and histories in them, for tests."""

from __future__ import annotations

from folio_backend.cache.eviction import LeastRecentlyUsed
from folio_backend.cache.kv_cache import KVCache
from folio_backend.cache.page_store import PageCount, PageStore
from folio_backend.cache.page_table import PageTable
from folio_backend.cache.prefix_key import PrefixKeys

KEYS = PrefixKeys(b"tenant", b"weights", b"format")


def cache_of(raw: int, sealed: int, sink_pages: int = 1) -> KVCache:
    """An empty cache over so many pages."""
    return KVCache(PageStore(PageCount(raw, sealed), LeastRecentlyUsed()), sink_pages)


def ids(num_tokens: int, first: int = 0) -> list[int]:
    """Token ids that count up; histories of different `first` share nothing."""
    return list(range(first, first + num_tokens))


def running(cache: KVCache, token_ids: list[int]) -> PageTable:
    """A running table that has computed a history, page by page."""
    table = PageTable(KEYS)
    cache.wake(table, token_ids)
    while left := len(token_ids) - table.num_computed_tokens:
        count = min(left, 64 - table.num_computed_tokens % 64)
        assert cache.extend(table, count)
        cache.commit(table, token_ids, count)
    return table


def idle(cache: KVCache, token_ids: list[int]) -> PageTable:
    """A parked table that has computed a history."""
    table = running(cache, token_ids)
    cache.park(table)
    return table
