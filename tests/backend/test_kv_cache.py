"""Whatever happens to page tables in whatever order, no page is lost, held twice or found under a wrong key."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from folio_backend.cache.page import Page, PageKind, PageState
from folio_backend.cache.page_table import PageTable
from folio_kernels.layout import PAGE_SIZE
from tests.backend.cache_histories import KEYS, cache_of, idle, ids


@dataclass(eq=False)
class Sequence:
    """A table and the tokens it is for; `num_pending` of them are in a step."""

    table: PageTable = field(default_factory=lambda: PageTable(KEYS))
    token_ids: list[int] = field(default_factory=list)
    num_pending: int = 0


class CacheMachine(RuleBasedStateMachine):
    """Sequences in every state over a pool that is too small for them.

    Every raw slot and every stored page remembers the tokens that were computed into it, so that a table which serves
    a history is seen to hold that history and no other.
    """

    running = Bundle("running")
    parked = Bundle("parked")

    @initialize(raw=st.integers(3, 8), sealed=st.integers(1, 8), sink_pages=st.integers(0, 2))
    def begin(self, raw: int, sealed: int, sink_pages: int) -> None:
        """An empty cache."""
        self.cache = cache_of(raw, sealed, sink_pages)
        self.sequences: set[Sequence] = set()
        self.content: dict[Page, list[int]] = {}

    def _step(self, sequence: Sequence, num_new: int) -> None:
        """Writes a step's tokens where the kernels would: raw pages first, then what they seal into."""
        table, start = sequence.table, sequence.table.num_computed_tokens
        first = start // PAGE_SIZE
        for position in range(start, start + num_new):
            page = table.filling[position // PAGE_SIZE - first]
            known = self.content.get(page, [])[: position % PAGE_SIZE]
            self.content[page] = [*known, sequence.token_ids[position]]
        for index, sealed in table.sealing.items():
            self.content[sealed] = self.content[table.filling[index - first]]

    @rule(target=parked, branch=st.integers(0, 2), num_tokens=st.integers(1, 3 * PAGE_SIZE))
    def new(self, branch: int, num_tokens: int) -> Sequence:
        """A sequence that has computed nothing; some begin with the same pages."""
        shared = PAGE_SIZE * branch
        sequence = Sequence(token_ids=ids(shared) + ids(num_tokens, 1_000 * branch))
        self.sequences.add(sequence)
        return sequence

    @rule(target=running, sequence=consumes(parked), more=st.integers(0, 2))
    def wake(self, sequence: Sequence, more: int) -> Sequence:
        """Lets a sequence take up what is there of its history."""
        sequence.token_ids = sequence.token_ids + ids(max(more, not sequence.token_ids), 50_000)
        self.cache.wake(sequence.table, sequence.token_ids)
        assert sequence.table.num_computed_tokens < len(sequence.token_ids)
        return sequence

    @rule(sequence=running, num_new=st.integers(1, 2 * PAGE_SIZE))
    def extend(self, sequence: Sequence, num_new: int) -> None:
        """Takes the pages of a step, or none."""
        num_new = min(num_new, len(sequence.token_ids) - sequence.table.num_computed_tokens)
        if sequence.num_pending or not num_new:
            return
        store = self.cache.store
        need = self.cache.pages_for(sequence.table.num_computed_tokens, num_new)
        before, can_take = dict(store.count_states()), store.can_take(need)
        assert self.cache.extend(sequence.table, num_new) == can_take
        if can_take:
            sequence.num_pending = num_new
            self._step(sequence, num_new)
        else:
            assert store.count_states() == before

    @rule(sequence=running, num_sampled=st.integers(0, 1))
    def commit(self, sequence: Sequence, num_sampled: int) -> None:
        """Ends a step; sometimes a token was sampled."""
        if sequence.num_pending:
            self.cache.commit(sequence.table, sequence.token_ids, sequence.num_pending)
            sequence.num_pending = 0
            sequence.token_ids = sequence.token_ids + ids(num_sampled, 7)

    @rule(sequence=running)
    def roll_back(self, sequence: Sequence) -> None:
        """Gives a step up."""
        before = sequence.table.num_computed_tokens
        self.cache.roll_back(sequence.table)
        sequence.num_pending = 0
        assert sequence.table.num_computed_tokens == before

    @rule(target=parked, sequence=consumes(running))
    def park(self, sequence: Sequence) -> Sequence:
        """Rests."""
        self.cache.park(sequence.table)
        sequence.num_pending = 0
        return sequence

    @rule(target=parked, sequence=consumes(running))
    def release(self, sequence: Sequence) -> Sequence:
        """Lets go of everything."""
        self.cache.release(sequence.table)
        sequence.num_pending = 0
        assert not sequence.table.held_pages()
        return sequence

    @rule(target=parked, sequence=consumes(parked))
    def fork(self, sequence: Sequence) -> Sequence:
        """Goes on twice."""
        table, copied = self.cache.fork(sequence.table)
        if copied is not None:
            source, target = copied
            self.content[target] = list(self.content[source])
        fork = Sequence(table, list(sequence.token_ids))
        self.sequences.add(fork)
        return multiple(sequence, fork)  # type: ignore[return-value] # Hypothesis unpacks it

    @rule(sequence=parked, share=st.floats(0, 1))
    def truncate(self, sequence: Sequence, share: float) -> None:
        """Forgets the end of a history."""
        sequence.token_ids = sequence.token_ids[: int(share * len(sequence.token_ids))]
        self.cache.truncate(sequence.table, len(sequence.token_ids))

    @rule(sequence=consumes(parked))
    def close(self, sequence: Sequence) -> None:
        """Ends a sequence for good."""
        self.cache.drop_open_page(sequence.table)
        self.cache.forget(sequence.table.keys)
        self.sequences.discard(sequence)

    @invariant()
    def is_intact(self) -> None:
        """Nothing is lost."""
        self.cache.store.check_integrity(sequence.table for sequence in self.sequences)

    @invariant()
    def tables_hold_their_own_histories(self) -> None:
        """What a page holds is what its table says."""
        for sequence in self.sequences:
            table = sequence.table
            for index, page in enumerate(table.pages):
                history = sequence.token_ids[index * PAGE_SIZE : (index + 1) * PAGE_SIZE]
                assert self.content[page] == history
                assert (page.kind is PageKind.RAW) == (index < self.cache.sink_pages)
            if table.open_page is not None:
                start = PAGE_SIZE * len(table.pages if table.is_running else table.keys)
                opened = sequence.token_ids[start : start + table.num_open_tokens]
                assert self.content[table.open_page][: table.num_open_tokens] == opened
                assert len(opened) == table.num_open_tokens

    @invariant()
    def is_all_available_when_nothing_runs(self) -> None:
        """Only running tables keep pages from others."""
        if not any(sequence.table.is_running for sequence in self.sequences):
            assert self.cache.store.can_take(self.cache.store.num_pages)


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


def test_a_prompt_that_is_there_whole_ends_before_its_last_token() -> None:
    cache = cache_of(8, 8)
    idle(cache, ids(4 * PAGE_SIZE))
    table = PageTable(KEYS)
    cache.wake(table, ids(4 * PAGE_SIZE))
    assert table.num_computed_tokens == 3 * PAGE_SIZE
    cache.release(table)


def test_an_idle_history_that_is_asked_for_again_ends_before_its_last_token() -> None:
    cache = cache_of(8, 8)
    table = idle(cache, ids(100))
    cache.wake(table, ids(100))
    assert table.num_computed_tokens == 99
    cache.release(table)


def test_what_two_compute_at_once_is_kept_once() -> None:
    cache = cache_of(8, 8)
    tables = [PageTable(KEYS), PageTable(KEYS)]
    for table in tables:
        cache.wake(table, ids(130))
        assert cache.extend(table, 130)
    for table in tables:
        cache.commit(table, ids(130), 130)
    assert tables[0].pages == tables[1].pages
    assert cache.store.count_states()[PageKind.SEALED, PageState.HELD] == 1
    for table in tables:
        cache.release(table)


def test_a_fork_copies_the_open_page_and_shares_the_rest() -> None:
    cache = cache_of(8, 8)
    table = idle(cache, ids(200))
    fork, copied = cache.fork(table)
    assert copied == (table.open_page, fork.open_page)
    assert fork.open_page is not table.open_page
    for each in (table, fork):
        cache.wake(each, ids(201))
        assert each.num_computed_tokens == 200
    assert fork.pages == table.pages
    cache.release(table)
    cache.release(fork)


def test_a_fork_without_room_for_a_second_open_page_computes_its_tokens_again() -> None:
    cache = cache_of(2, 2)
    running = PageTable(KEYS)
    cache.wake(running, ids(10, 5_000))
    table = idle(cache, ids(40))
    assert cache.extend(running, 10)
    fork, copied = cache.fork(table)
    assert copied is None
    assert fork.num_computed_tokens == 0
    assert table.num_computed_tokens == 40
    cache.release(running)


def test_a_cut_keeps_whole_pages_and_the_part_of_the_open_one_below_it() -> None:
    for num_tokens, num_kept in ((200, 200), (195, 195), (192, 192), (191, 128), (64, 64), (63, 0), (0, 0)):
        cache = cache_of(8, 8)
        table = idle(cache, ids(200))
        cache.truncate(table, num_tokens)
        cache.wake(table, [*ids(num_tokens), 7, 7])
        assert table.num_computed_tokens == num_kept
        cache.release(table)


def test_forgotten_pages_are_free_at_once() -> None:
    cache = cache_of(8, 8)
    table = idle(cache, ids(200))
    cache.drop_open_page(table)
    cache.forget(table.keys)
    counts = cache.store.count_states()
    assert counts[PageKind.RAW, PageState.FREE] == 8
    assert counts[PageKind.SEALED, PageState.FREE] == 8


def test_pages_behind_which_another_history_goes_on_are_not_forgotten() -> None:
    cache = cache_of(8, 8)
    table = idle(cache, ids(3 * PAGE_SIZE))
    other = idle(cache, [*ids(2 * PAGE_SIZE), *ids(PAGE_SIZE, 500)])
    cache.forget(table.keys)
    assert cache.num_resident_tokens(table.keys) == 2 * PAGE_SIZE
    assert cache.num_resident_tokens(other.keys) == 3 * PAGE_SIZE
