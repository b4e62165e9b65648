"""All pages of one pool: takes, holds, publishes, finds and evicts them one at a time.

Knows pages and their prefix keys; not which sequence's tokens they hold (`kv_cache`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from folio_backend.cache.eviction import EvictionStrategy
from folio_backend.cache.page import Page, PageKind, PageState
from folio_backend.cache.page_table import PageTable


@dataclass(frozen=True)
class PageCount:
    """A number of pages, raw and sealed apart."""

    raw: int
    sealed: int

    def of(self, kind: PageKind) -> int:
        """The number of one kind."""
        return self.raw if kind is PageKind.RAW else self.sealed


class PageStore:
    """The pages and the index over them.

    Args:
        num_pages: how many there are.
        strategy: the order in which pages that may go, go.
        gc_threshold: the share of each kind's pages that may stay in use once some are let go; see `collect`.
    """

    def __init__(self, num_pages: PageCount, strategy: EvictionStrategy, gc_threshold: float = 1.0) -> None:
        self.num_pages = num_pages
        self._most_in_use = {kind: int(gc_threshold * num_pages.of(kind)) for kind in PageKind}
        self.evictions: Counter[str] = Counter()
        self._strategy = strategy
        self._free = {kind: [Page(kind, index) for index in reversed(range(num_pages.of(kind)))] for kind in PageKind}
        self._index: dict[bytes, Page] = {}
        self._num_held = dict.fromkeys(PageKind, 0)
        self._num_idle = 0
        self._tick = 0

    def find(self, key: bytes) -> Page | None:
        """The page of that key, if it is there."""
        return self._index.get(key)

    def can_take(self, count: PageCount) -> bool:
        """Whether that many pages are free or could be made so now."""
        return all(count.of(kind) <= self._num_available(kind) for kind in PageKind)

    def _num_available(self, kind: PageKind) -> int:
        idle = self._num_idle if kind is PageKind.RAW else 0
        return self.num_pages.of(kind) - self._num_held[kind] + idle

    def take(self, kind: PageKind) -> Page:
        """A free page, held once, evicting another if need be; the caller has asked `can_take`."""
        while not self._free[kind]:
            self._evict(kind)
        page = self._free[kind].pop()
        self.hold(page)
        return page

    def hold(self, page: Page) -> None:
        """Counts one more table that holds the page."""
        if page.num_holders == 0:
            self._num_held[page.kind] += 1
        page.num_holders += 1

    def let_go(self, page: Page) -> None:
        """Counts one table less; a page that nobody holds is cached if it has a key, else free."""
        assert page.num_holders > 0
        page.num_holders -= 1
        page.last_used = self._tick
        if page.num_holders:
            return
        self._num_held[page.kind] -= 1
        if page.key is None:
            self._free[page.kind].append(page)
        elif page.is_evictable:
            self._strategy.offer(page)

    def advance(self) -> None:
        """Starts a new tick: what is let go from now on counts as used later."""
        self._tick += 1

    def publish(self, page: Page, key: bytes, parent: Page | None) -> Page:
        """Puts a held page into the index; one that is there already takes its place, and is returned."""
        present = self._index.get(key)
        if present is not None:
            self.hold(present)
            self.let_go(page)
            return present
        page.key, page.parent = key, parent
        if parent is not None:
            parent.children.add(page)
        self._index[key] = page
        return page

    def make_idle(self, page: Page, table: PageTable) -> None:
        """Marks a parked table's open page: it may be taken from now on."""
        page.idle_table, page.last_used = table, self._tick
        self._num_idle += 1
        self._strategy.offer(page)

    def make_busy(self, page: Page) -> None:
        """Takes the mark of `make_idle` back."""
        page.idle_table = None
        self._num_idle -= 1

    def unpublish(self, page: Page) -> None:
        """Takes a cached leaf out of the index and frees it."""
        assert page.key is not None
        assert page.is_evictable
        del self._index[page.key]
        parent, page.parent, page.key = page.parent, None, None
        self._free[page.kind].append(page)
        if parent is not None:
            parent.children.remove(page)
            if parent.is_evictable:
                self._strategy.offer(parent)

    def collect(self) -> None:
        """Evicts ahead of need, until no more of each kind are in use than the threshold allows, or all are held."""
        for kind in PageKind:
            num_free = self.num_pages.of(kind) - self._most_in_use[kind]
            while len(self._free[kind]) < min(num_free, self._num_available(kind)):
                self._evict(kind)

    def _evict(self, kind: PageKind) -> None:
        """Frees one page: of that kind, or, where each has others behind it, one of those."""
        victim = self._strategy.next_victim(kind) or self._leaf_behind_oldest(kind)
        if victim.idle_table is None:
            self.evictions["cached"] += 1
            self.unpublish(victim)
            return
        self.evictions["idle"] += 1
        victim.idle_table.open_page, victim.idle_table.num_open_tokens = None, 0
        self.make_busy(victim)
        self.let_go(victim)

    def _leaf_behind_oldest(self, kind: PageKind) -> Page:
        cached = (page for page in self._index.values() if page.kind is kind and page.num_holders == 0)
        page = min(cached, key=lambda page: page.last_used)
        while page.children:
            page = min(page.children, key=lambda child: child.last_used)
        return page

    def count_states(self) -> Mapping[tuple[PageKind, PageState], int]:
        """How many pages of each kind are in each state."""
        counts = {}
        for kind in PageKind:
            free, held = len(self._free[kind]), self._num_held[kind]
            counts[kind, PageState.FREE] = free
            counts[kind, PageState.HELD] = held
            counts[kind, PageState.CACHED] = self.num_pages.of(kind) - free - held
            counts[kind, PageState.LOADING] = 0
        return counts

    def check_integrity(self, tables: Iterable[PageTable]) -> None:
        """Checks the store against all page tables that there are.

        Raises:
            AssertionError: states do not sum to the pool, a count of holders differs from the tables that hold the
                page, the index points at a page that is not what it says, or a parent lacks its child.
        """
        holders: Counter[Page] = Counter()
        for table in tables:
            holders.update(table.held_pages())
            if table.open_page is not None and table.open_page.idle_table is not None:
                assert table.open_page.idle_table is table, "an idle open page names another table"
        for page, count in holders.items():
            assert page.num_holders == count, f"{page.kind} page {page.page_id}: {page.num_holders} != {count}"
        for key, page in self._index.items():
            assert page.key == key, "the index points at a page of another key"
            assert page.num_holders == holders[page], "a page in the index is held by no table"
            assert page.parent is None or (page in page.parent.children and page.parent.key in self._index)
        for kind in PageKind:
            held = sum(page.kind is kind for page in holders)
            cached = sum(page.kind is kind and page.num_holders == 0 for page in self._index.values())
            assert held == self._num_held[kind], f"{kind}: {held} held pages counted as {self._num_held[kind]}"
            assert held + cached + len(self._free[kind]) == self.num_pages.of(kind), f"{kind}: pages lost"
        assert self._num_idle == sum(page.idle_table is not None for page in holders)
