"""The cache: what happens to page tables as sequences start, grow, end, rest, fork and shrink.

Every public method leaves the cache consistent (`PageStore.check_integrity`). Knows tokens and pages by number, never
by content, and runs under the engine's lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from folio_backend.cache.page import Page, PageKind
from folio_backend.cache.page_store import PageCount, PageStore
from folio_backend.cache.page_table import PageTable
from folio_kernels.layout import PAGE_SIZE


class KVCache:
    """Page tables over one store.

    Args:
        store: the pages.
        sink_pages: how many first pages of a history stay raw.
    """

    def __init__(self, store: PageStore, sink_pages: int) -> None:
        self.store = store
        self.sink_pages = sink_pages

    def pages_for(self, num_computed: int, num_new: int) -> PageCount:
        """Pages that computing `num_new` tokens behind `num_computed` takes: those it touches, and those it seals."""
        first, end = num_computed // PAGE_SIZE, num_computed + num_new
        already_open = 1 if num_computed % PAGE_SIZE else 0
        touched = -(-end // PAGE_SIZE) - first
        sealed = max(0, end // PAGE_SIZE - max(first, self.sink_pages))
        return PageCount(touched - already_open, sealed)

    def pages_of_history(self, num_tokens: int, max_step_tokens: int) -> PageCount:
        """The most pages that a history of `num_tokens` ever holds at once, a prefill step's raw pages included."""
        sinks = min(self.sink_pages, num_tokens // PAGE_SIZE)
        in_one_step = -(-min(max_step_tokens, num_tokens) // PAGE_SIZE) + 1
        return PageCount(
            raw=min(sinks + in_one_step, -(-num_tokens // PAGE_SIZE)),
            sealed=max(0, num_tokens // PAGE_SIZE - self.sink_pages),
        )

    def num_resident_tokens(self, keys: Iterable[bytes]) -> int:
        """Tokens of the longest prefix, by the keys of its pages, that is there."""
        count = 0
        for key in keys:
            if self.store.find(key) is None:
                break
            count += PAGE_SIZE
        return count

    def adopt(self, table: PageTable, max_tokens: int) -> None:
        """Lets a table without open page hold the resident pages that come next, up to `max_tokens` tokens in all."""
        assert table.open_page is None
        while len(table.pages) < min(len(table.keys), max_tokens // PAGE_SIZE):
            page = self.store.find(table.keys[len(table.pages)])
            if page is None:
                return
            self.store.hold(page)
            table.pages.append(page)

    def wake(self, table: PageTable, token_ids: Sequence[int]) -> None:
        """Lets a parked or new table hold again what is there of its history, which `token_ids` continue.

        A history that is resident whole ends before its last token: that one is computed again for its logits.
        """
        assert not table.is_running
        table.is_running = True
        open_page, num_open = table.open_page, table.num_open_tokens
        open_start = len(table.keys) * PAGE_SIZE
        table.open_page, table.num_open_tokens = None, 0
        table.extend_keys(token_ids, len(token_ids))
        self.adopt(table, len(token_ids) - 1)
        if open_page is None:
            return
        self.store.make_busy(open_page)
        num_open = min(num_open, len(token_ids) - 1 - open_start)
        if len(table.pages) * PAGE_SIZE == open_start and num_open > 0:
            table.open_page, table.num_open_tokens = open_page, num_open
        else:
            self.store.let_go(open_page)

    def extend(self, table: PageTable, num_new: int) -> bool:
        """Takes the pages that the table's next `num_new` tokens need, evicting as many as that takes.

        Returns:
            False, with nothing taken, when there are not enough.
        """
        computed = table.num_computed_tokens
        count = self.pages_for(computed, num_new)
        if not self.store.can_take(count):
            return False
        table.filling = [] if table.open_page is None else [table.open_page]
        table.filling += [self.store.take(PageKind.RAW) for _ in range(count.raw)]
        first_sealed = max(len(table.pages), self.sink_pages)
        for index in range(first_sealed, (computed + num_new) // PAGE_SIZE):
            table.sealing[index] = self.store.take(PageKind.SEALED)
        return True

    def commit(self, table: PageTable, token_ids: Sequence[int], num_new: int) -> None:
        """Makes a step's tokens part of the table: full pages become stored and can be found by the keys they have."""
        end = table.num_computed_tokens + num_new
        table.extend_keys(token_ids, end)
        filling, table.filling = table.filling, []
        table.open_page = None
        for page in filling:
            index = len(table.pages)
            if end < (index + 1) * PAGE_SIZE:
                table.open_page = page
                break
            stored = page
            if index in table.sealing:
                stored = table.sealing.pop(index)
                self.store.let_go(page)
            if index < len(table.keys):
                parent = table.pages[-1] if table.pages else None
                stored = self.store.publish(stored, table.keys[index], parent)
            table.pages.append(stored)
        table.num_open_tokens = end - len(table.pages) * PAGE_SIZE

    def roll_back(self, table: PageTable) -> None:
        """Gives back what `extend` took for a step that did not happen."""
        for page in (*table.filling, *table.sealing.values()):
            if page is not table.open_page:
                self.store.let_go(page)
        table.filling, table.sealing = [], {}

    def release(self, table: PageTable) -> None:
        """Lets go of everything a table holds; full pages stay cached for whoever has the same prefix."""
        if not table.is_running:
            self.drop_open_page(table)
            return
        table.is_running = False
        self.roll_back(table)
        if table.open_page is not None:
            self.store.let_go(table.open_page)
        table.open_page, table.num_open_tokens = None, 0
        self._let_go_of_pages(table)
        self.store.collect()

    def park(self, table: PageTable) -> None:
        """Turns a running table into an idle session's: its open page may be taken, its full pages are cached."""
        assert table.is_running
        self.roll_back(table)
        table.is_running = False
        table.keys = table.keys[: len(table.pages)]
        self._let_go_of_pages(table)
        if table.open_page is not None:
            self.store.make_idle(table.open_page, table)
        self.store.collect()

    def _let_go_of_pages(self, table: PageTable) -> None:
        self.store.advance()
        pages, table.pages = table.pages, []
        for page in reversed(pages):
            self.store.let_go(page)

    def fork(self, table: PageTable) -> tuple[PageTable, tuple[Page, Page] | None]:
        """A parked copy of a parked table.

        Returns:
            The copy, and the raw pages (source, target) whose content must be copied now; None where there is no open
            page, or no room for a second one: the copy then computes those tokens again.
        """
        copy = PageTable(table.prefix_keys, keys=list(table.keys))
        source = table.open_page
        if source is None:
            return copy, None
        self.store.make_busy(source)
        target = self.store.take(PageKind.RAW) if self.store.can_take(PageCount(1, 0)) else None
        self.store.make_idle(source, table)
        if target is None:
            return copy, None
        copy.open_page, copy.num_open_tokens = target, table.num_open_tokens
        self.store.make_idle(target, copy)
        return copy, (source, target)

    def truncate(self, table: PageTable, num_tokens: int) -> None:
        """Cuts a parked table: whole pages below the cut stay, an open page is cut, a sealed one never re-opened."""
        open_start = len(table.keys) * PAGE_SIZE
        table.keys = table.keys[: num_tokens // PAGE_SIZE]
        if num_tokens > open_start:
            table.num_open_tokens = min(table.num_open_tokens, num_tokens - open_start)
        else:
            self.drop_open_page(table)

    def drop_open_page(self, table: PageTable) -> None:
        """Frees a parked table's open page."""
        page, table.open_page, table.num_open_tokens = table.open_page, None, 0
        if page is not None:
            self.store.make_busy(page)
            self.store.let_go(page)

    def forget(self, keys: Sequence[bytes]) -> None:
        """Frees the cached pages of a history nobody will ask for again, tail first, as far as nobody holds them."""
        for key in reversed(keys):
            page = self.store.find(key)
            if page is None:
                continue
            if not page.is_evictable:
                return
            self.store.unpublish(page)
