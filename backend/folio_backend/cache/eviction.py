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

_Offer = tuple[int, int, int, Page]
"""A page's last use, whether it is cached rather than idle, the offer's own number, the page."""

_MIN_MOST_OFFERS = 1024
"""Offers of a kind to let pile up before stale ones are looked for."""


class EvictionStrategy(Protocol):
    """An order among pages that may be taken."""

    def offer(self, page: Page) -> None:
        """The page may be taken from now on, or was used again: its `last_used` is up to date."""

    def next_victim(self, kind: PageKind) -> Page | None:
        """The page of that kind to take next, or None; it stays on offer until it stops being evictable."""


class LeastRecentlyUsed:
    """Takes the page whose last use lies furthest back; of equals, an idle open page before a cached one."""

    def __init__(self) -> None:
        self._heaps: dict[PageKind, list[_Offer]] = {kind: [] for kind in PageKind}
        self._most_offers = dict.fromkeys(PageKind, _MIN_MOST_OFFERS)
        self._order = itertools.count()

    def __len__(self) -> int:
        return sum(len(heap) for heap in self._heaps.values())

    def offer(self, page: Page) -> None:
        """See `EvictionStrategy.offer`."""
        if len(self._heaps[page.kind]) >= self._most_offers[page.kind]:
            self._drop_stale(page.kind)
        entry = (page.last_used, int(page.idle_table is None), next(self._order), page)
        heapq.heappush(self._heaps[page.kind], entry)

    def _drop_stale(self, kind: PageKind) -> None:
        """Keeps one offer of each page that may still be taken: a pool that never fills up asks for no victim."""
        valid = {offer[-1]: offer for offer in self._heaps[kind] if _is_valid(offer)}
        self._heaps[kind] = sorted(valid.values())
        self._most_offers[kind] = max(_MIN_MOST_OFFERS, 2 * len(valid))

    def next_victim(self, kind: PageKind) -> Page | None:
        """See `EvictionStrategy.next_victim`; drops entries that went stale since they were offered."""
        heap = self._heaps[kind]
        while heap:
            if _is_valid(heap[0]):
                return heap[0][-1]
            heapq.heappop(heap)
        return None


def _is_valid(offer: _Offer) -> bool:
    """Whether its page may still be taken and was not used since."""
    last_used, _, _, page = offer
    return page.is_evictable and page.last_used == last_used


STRATEGIES: dict[str, Callable[[], EvictionStrategy]] = {"lru": LeastRecentlyUsed}
