"""Which pages go when room is needed: as few as it takes, leaves before parents, the longest unused first."""

from __future__ import annotations

import pytest

from folio_backend.cache.eviction import LeastRecentlyUsed
from folio_backend.cache.kv_cache import KVCache
from folio_backend.cache.page import PageKind, PageState
from folio_backend.cache.page_store import PageCount, PageStore
from folio_backend.cache.page_table import PageTable
from folio_kernels.layout import PAGE_SIZE
from tests.backend.cache_histories import cache_of, idle, ids, running


def num_resident_pages(cache: KVCache, table: PageTable) -> int:
    return cache.num_resident_tokens(table.keys) // PAGE_SIZE


def test_no_more_is_evicted_than_is_needed() -> None:
    cache = cache_of(6, 4)
    table = idle(cache, ids(5 * PAGE_SIZE))
    running(cache, ids(3 * PAGE_SIZE, 9_000))
    assert cache.store.evictions == {"cached": 2}
    assert num_resident_pages(cache, table) == 3


def test_nothing_is_evicted_while_pages_are_free() -> None:
    cache = cache_of(8, 8)
    table = idle(cache, ids(5 * PAGE_SIZE + 10))
    running(cache, ids(5 * PAGE_SIZE, 9_000))
    assert not cache.store.evictions
    assert num_resident_pages(cache, table) == 5
    assert table.open_page is not None


def test_leaves_go_first_of_the_history_unused_for_longest() -> None:
    cache = cache_of(20, 6)
    old, new = idle(cache, ids(4 * PAGE_SIZE)), idle(cache, ids(4 * PAGE_SIZE, 5_000))
    resident = []
    for first in (10_000, 20_000, 30_000, 40_000):
        running(cache, ids(2 * PAGE_SIZE, first))
        resident.append((num_resident_pages(cache, old), num_resident_pages(cache, new)))
    assert resident == [(3, 4), (2, 4), (1, 4), (1, 3)]


def test_use_makes_a_history_young_again() -> None:
    cache = cache_of(20, 6)
    old, new = idle(cache, ids(4 * PAGE_SIZE)), idle(cache, ids(4 * PAGE_SIZE, 5_000))
    cache.wake(old, ids(4 * PAGE_SIZE + 1))
    cache.park(old)
    running(cache, ids(2 * PAGE_SIZE, 10_000))
    assert (num_resident_pages(cache, old), num_resident_pages(cache, new)) == (4, 3)


def test_an_idle_session_gives_up_its_open_page_before_its_stored_ones() -> None:
    cache = cache_of(3, 4)
    table = idle(cache, ids(2 * PAGE_SIZE + 10))
    running(cache, ids(2 * PAGE_SIZE - 1, 9_000))
    assert cache.store.evictions == {"idle": 1}
    assert table.open_page is None
    assert num_resident_pages(cache, table) == 2


def test_a_raw_page_with_others_behind_it_can_be_had_by_evicting_those() -> None:
    cache = cache_of(2, 4)
    table = idle(cache, ids(3 * PAGE_SIZE))
    running(cache, ids(PAGE_SIZE + 1, 9_000))
    assert cache.store.evictions == {"cached": 3}
    assert num_resident_pages(cache, table) == 0


def test_an_idle_open_page_can_be_had_and_a_running_one_cannot() -> None:
    cache = cache_of(1, 1)
    table = idle(cache, ids(10))
    assert cache.store.can_take(PageCount(1, 0))
    cache.wake(table, ids(11))
    assert not cache.store.can_take(PageCount(1, 0))


def test_held_pages_are_never_taken() -> None:
    cache = cache_of(4, 2)
    table = running(cache, ids(3 * PAGE_SIZE))
    assert not cache.store.can_take(PageCount(0, 1))
    other = PageTable(table.prefix_keys)
    cache.wake(other, ids(2 * PAGE_SIZE, 9_000))
    assert not cache.extend(other, 2 * PAGE_SIZE)
    assert cache.extend(other, PAGE_SIZE)
    cache.store.check_integrity([table, other])


def test_many_rests_and_returns_leave_no_trace_behind() -> None:
    strategy = LeastRecentlyUsed()
    cache = KVCache(PageStore(PageCount(2, 4), strategy), sink_pages=1)
    table = idle(cache, ids(100))
    for _ in range(5_000):
        cache.wake(table, ids(101))
        cache.park(table)
    assert len(strategy) < 2_000
    running(cache, ids(4 * PAGE_SIZE - 1, 9_000))
    assert cache.store.evictions == {"idle": 1, "cached": 1}


@pytest.mark.parametrize(("gc_threshold", "in_use"), [(1.0, [2, 3]), (0.5, [2, 2]), (0.25, [1, 1]), (0.0, [0, 0])])
def test_above_the_threshold_what_nobody_holds_is_evicted_ahead_of_need(gc_threshold: float, in_use: list[int]) -> None:
    store = PageStore(PageCount(raw=4, sealed=4), LeastRecentlyUsed(), gc_threshold)
    cache = KVCache(store, sink_pages=1)
    table = idle(cache, ids(4 * PAGE_SIZE + 10))
    counts = store.count_states()
    assert [4 - counts[kind, PageState.FREE] for kind in (PageKind.RAW, PageKind.SEALED)] == in_use
    cache.store.check_integrity([table])


def test_the_threshold_takes_nothing_that_is_held() -> None:
    cache = KVCache(PageStore(PageCount(raw=4, sealed=4), LeastRecentlyUsed(), 0.0), sink_pages=1)
    table = running(cache, ids(3 * PAGE_SIZE + 10))
    other = idle(cache, ids(2 * PAGE_SIZE, 9_000))
    assert num_resident_pages(cache, other) == 0
    assert len(table.pages) == 3
    cache.store.check_integrity([table, other])


@pytest.mark.parametrize("damage", ["lost", "held twice", "wrong key", "orphan"])
def test_the_check_sees_damage(damage: str) -> None:
    cache = cache_of(4, 4)
    table = running(cache, ids(3 * PAGE_SIZE))
    cache.store.check_integrity([table])
    if damage == "lost":
        cache.store._free[PageKind.SEALED].pop()
    elif damage == "held twice":
        cache.store.hold(table.pages[0])
    elif damage == "wrong key":
        table.pages[0].key = b"another"
    else:
        table.pages[1].children.clear()
    with pytest.raises(AssertionError):
        cache.store.check_integrity([table])


def test_states_sum_to_the_pool() -> None:
    cache = cache_of(5, 7)
    idle(cache, ids(3 * PAGE_SIZE + 5))
    running(cache, ids(2 * PAGE_SIZE, 9_000))
    counts = cache.store.count_states()
    assert {state: counts[PageKind.RAW, state] for state in PageState} == {
        PageState.FREE: 2,
        PageState.CACHED: 1,
        PageState.HELD: 2,
        PageState.LOADING: 0,
    }
    assert sum(counts[PageKind.SEALED, state] for state in PageState) == 7
