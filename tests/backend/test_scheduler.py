"""Who computes how much: decodes before prefills, the queue in order, one prefix once, and all comes to an end."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folio_backend.cache.page import PageKind, PageState
from folio_kernels.layout import PAGE_SIZE
from tests.backend.cache_histories import ids
from tests.backend.scheduled_batch import ScheduledBatch


def test_decodes_go_first_and_prefills_share_what_is_left() -> None:
    batch = ScheduledBatch(max_step_tokens=100)
    long = batch.add(ids(300), 5)
    assert batch.step() == {long: 100}
    short = batch.add(ids(10, 1_000), 5)
    other = batch.add(ids(300, 2_000), 5)
    batch.step()
    batch.step()
    schedule = batch.step()
    assert next(iter(schedule.items())) == (long, 1)
    assert schedule == {long: 1, short: 10, other: 89}
    schedule = batch.step()
    assert schedule == {long: 1, short: 1, other: 98}
    assert list(schedule) == [long, short, other]


def test_a_step_never_holds_more_tokens_than_allowed() -> None:
    batch = ScheduledBatch(max_step_tokens=64)
    for index in range(6):
        batch.add(ids(70 + index, 1_000 * index), 3)
    while batch.scheduler.has_work:
        assert 0 < sum(batch.step().values()) <= 64


def test_the_queue_goes_by_priority_then_deadline_then_arrival() -> None:
    batch = ScheduledBatch(max_running=1)
    running = batch.add([1, 2], 1)
    later = batch.add([3, 4], 1)
    relaxed = batch.add([5, 6], 1, deadline_ms=60_000)
    urgent = batch.add([7, 8], 1, deadline_ms=30_000)
    important = batch.add([9, 10], 1, priority=-1)
    unimportant = batch.add([11, 12], 1, priority=1, deadline_ms=1_000)
    order = [next(iter(batch.step())) for _ in range(6)]
    assert order == [important, urgent, relaxed, running, later, unimportant]


def test_no_more_run_than_allowed() -> None:
    batch = ScheduledBatch(max_running=3)
    for index in range(7):
        batch.add([index, 50], 4)
    while batch.scheduler.has_work:
        assert len(batch.step()) <= 3


def test_the_youngest_is_preempted_and_keeps_its_tokens() -> None:
    batch = ScheduledBatch(raw=6, sealed=3)
    old = batch.add(ids(130), 100)
    young = batch.add(ids(130, 1_000), 100)
    while not batch.scheduler.num_preemptions:
        batch.step()
    assert batch.scheduler.running == [old]
    assert batch.scheduler.waiting == [young]
    assert not young.table.held_pages()
    num_sampled = len(young.sampled)
    assert num_sampled > 0
    assert young.token_ids[:130] == ids(130, 1_000)
    while batch.scheduler.has_work:
        batch.step()
    assert batch.num_computed[old] == 130 + 99
    assert len(young.sampled) == len(old.sampled) == 100


def test_a_prompt_waits_until_its_pages_can_be_had() -> None:
    batch = ScheduledBatch(raw=12, sealed=4)
    first = batch.add(ids(4 * PAGE_SIZE), 10)
    batch.step()
    second = batch.add(ids(4 * PAGE_SIZE, 1_000), 10)
    while first.finish_reason is None:
        assert second not in batch.step()
    assert batch.scheduler.num_preemptions == 0
    assert batch.step() == {second: 128}


def test_the_same_prefix_is_computed_once_while_the_second_waits() -> None:
    batch = ScheduledBatch(max_step_tokens=200)
    first = batch.add(ids(300), 1)
    second = batch.add([*ids(256), *ids(40, 1_000)], 1)
    assert batch.step() == {first: 200}
    assert batch.step() == {first: 100}
    assert batch.scheduler.running == [second]
    assert batch.step() == {second: 40}
    assert second.num_cached_tokens == 256
    assert first.num_cached_tokens == 0


def test_one_that_computes_another_page_does_not_wait() -> None:
    batch = ScheduledBatch(max_step_tokens=256)
    first = batch.add(ids(200), 1)
    second = batch.add([*ids(63), *ids(100, 1_000)], 1)
    assert batch.step() == {first: 200, second: 56}


def test_the_second_takes_over_when_the_first_leaves() -> None:
    batch = ScheduledBatch()
    first = batch.add(ids(300), 1)
    second = batch.add(ids(300), 1)
    batch.step()
    batch.end(first)
    assert batch.step() == {second: 128}
    assert second.num_cached_tokens == 128


def test_too_few_raw_pages_make_a_chunk_smaller() -> None:
    batch = ScheduledBatch(raw=4, sealed=10, max_step_tokens=512)
    choice = batch.add(ids(300), 1)
    chunks = []
    while batch.scheduler.has_work:
        chunks.append(batch.step()[choice])
    assert sum(chunks) == 300
    assert max(chunks) <= 4 * PAGE_SIZE
    assert batch.scheduler.num_preemptions == 0


def test_isolated_choices_run_one_at_a_time_until_each_has_succeeded() -> None:
    batch = ScheduledBatch()
    choices = [batch.add([index, 50], 2) for index in range(3)]
    batch.step()
    batch.scheduler.isolate(choices[:2])
    for choice in choices[:2]:
        assert list(batch.step()) == [choice]
        batch.scheduler.succeeded(choice)
    assert list(batch.step()) == [choices[2]]


@given(
    raw=st.integers(3, 7),
    sealed=st.integers(5, 9),
    max_running=st.integers(1, 5),
    max_step_tokens=st.sampled_from([1, 33, 64, 100, 512]),
    requests=st.lists(
        st.tuples(
            st.integers(1, 260),  # tokens of the prompt
            st.integers(1, 90),  # tokens to sample
            st.integers(0, 2),  # which beginning it shares
            st.integers(0, 3),  # steps before it comes
            st.integers(-1, 1),  # priority
            st.integers(0, 60),  # steps after which it is cancelled; 0 for never
        ),
        min_size=1,
        max_size=7,
    ),
)
@settings(max_examples=200, deadline=None)
def test_everything_comes_to_an_end_as_long_as_each_request_alone_fits(
    raw: int,
    sealed: int,
    max_running: int,
    max_step_tokens: int,
    requests: list[tuple[int, int, int, int, int, int]],
) -> None:
    batch = ScheduledBatch(raw, sealed, max_running, max_step_tokens)
    cancels = {}
    for num_prompt, num_output, shared, num_steps, priority, cancel_after in requests:
        choice = batch.add(
            [*ids(64 * shared), *ids(num_prompt, 1_000 * shared)][:num_prompt], num_output, priority=priority
        )
        if cancel_after:
            cancels[choice] = cancel_after
        for _ in range(num_steps):
            batch.step()
    for num_steps in range(20_000):
        if not batch.scheduler.has_work:
            break
        assert batch.step()
        for choice, cancel_after in cancels.items():
            if num_steps == cancel_after and choice.finish_reason is None:
                batch.end(choice)
    else:
        pytest.fail("it does not come to an end")
    assert all(choice.finish_reason for choice in batch.choices)
    counts = batch.cache.store.count_states()
    assert counts[PageKind.RAW, PageState.HELD] == counts[PageKind.SEALED, PageState.HELD] == 0
