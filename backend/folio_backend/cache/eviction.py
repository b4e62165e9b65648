"""Eviction strategies: in which order pages that may go, go.

A strategy is told which pages may be taken (cached leaves and idle sessions' open pages) and names the next one of a
kind. Which pages those are is `KVCache`'s to know. A new strategy is a class here and a line in `STRATEGIES`.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Protocol

from folio_backend.cache.page import Page, PageKind


class EvictionStrategy(Protocol):
    """An order among pages that may be taken."""

    def offer(self, page: Page) -> None:
        """The page may be taken from now on, or was used again: its `last_used` is up to date."""

    def next_victim(self, kind: PageKind) -> Page | None:
        """The page of that kind to take next, or None; it stays on offer until it stops being evictable."""


class LeastRecentlyUsed:
    """Takes the page whose last use lies furthest back; of equals, an idle open page before a cached one."""

    def __init__(self) -> None:
        self._heaps: dict[PageKind, list[tuple[int, int, int, Page]]] = {kind: [] for kind in PageKind}
        self._order = itertools.count()

    def offer(self, page: Page) -> None:
        """See `EvictionStrategy.offer`."""
        entry = (page.last_used, int(page.idle_table is None), next(self._order), page)
        heapq.heappush(self._heaps[page.kind], entry)

    def next_victim(self, kind: PageKind) -> Page | None:
        """See `EvictionStrategy.next_victim`; drops entries that went stale since they were offered."""
        heap = self._heaps[kind]
        while heap:
            last_used, _, _, page = heap[0]
            if page.is_evictable and page.last_used == last_used:
                return page
            heapq.heappop(heap)
        return None


STRATEGIES: dict[str, Callable[[], EvictionStrategy]] = {"lru": LeastRecentlyUsed}
