"""Who keeps its pages when there are not enough of them, and that every page is accounted for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from folio_backend.attention_sessions import AttentionSessions
from folio_backend.cache.eviction import LeastRecentlyUsed
from folio_backend.cache.kv_cache import KVCache
from folio_backend.cache.page import PageState
from folio_backend.cache.page_store import PageCount, PageStore
from folio_backend.errors import InvalidArgument, NotFound, Unavailable
from tests.backend.attention_inputs import answer, expected_output, history, num_pages, operate, serving

# A history of 192 tokens and more holds two sealed pages of the four that this setting buys.
FOUR_SEALED_PAGES: dict[str, Any] = {"max_tokens": 256}


def session_ids(service: Any) -> list[str]:
    return [session["session_id"] for session in operate(service, op="sessions")["sessions"]]


def test_the_session_used_longest_ago_is_evicted_and_starts_again_only_at_position_0() -> None:
    told = history(260)
    with serving(**FOUR_SEALED_PAGES) as service:
        for name in ("a", "b"):
            answer(service, told.part(0, 200).step(name))
        answer(service, told.part(200, 201).step("a"))
        answer(service, told.part(0, 200).step("c"))
        assert session_ids(service) == ["a", "c"]
        assert dict(service.snapshot().num_evictions) == {"idle": 4}
        for position in (200, None):
            with pytest.raises(NotFound) as refusal:
                answer(service, told.part(200, 201).step("b", position))
            assert refusal.value.field == "session_id"
        output = answer(service, told.part(201, 250).step("a", 201))["output"][0]
        np.testing.assert_allclose(output, expected_output(told, "none")[201:250], rtol=0, atol=1e-4)
        assert answer(service, told.part(0, 50).step("b", 0))["length"].item() == 50
        assert answer(service, told.part(50, 51).step("b"))["length"].item() == 51


def test_sessions_of_the_batch_are_not_evicted_and_the_step_without_room_may_come_again() -> None:
    told = history(200)
    with serving(**FOUR_SEALED_PAGES) as service:
        outcomes: list[Any] = service.execute([told.step(name, 0) for name in ("a", "b", "c")])
        assert [outcome["length"].item() for outcome in outcomes[:2]] == [200, 200]
        assert isinstance(outcomes[2], Unavailable)
        assert outcomes[2].retry_after_ms
        assert session_ids(service) == ["a", "b"]
        assert answer(service, told.step("c", 0))["length"].item() == 200
        assert session_ids(service) == ["b", "c"]


def test_a_step_that_finds_no_room_evicts_nobody() -> None:
    told = history(330)
    with serving(**FOUR_SEALED_PAGES) as service:
        answer(service, told.part(0, 130).step("idle"))  # one sealed page
        answer(service, told.part(0, 200).step("a"))
        outcomes: list[Any] = service.execute([told.part(200, 201).step("a"), told.step("b")])
        assert isinstance(outcomes[1], Unavailable)
        assert session_ids(service) == ["idle", "a"]


def test_a_history_that_can_never_fit_is_refused_whatever_is_evicted() -> None:
    told = history(384)
    with serving(**FOUR_SEALED_PAGES) as service:
        answer(service, history(200).step("other"))
        with pytest.raises(InvalidArgument) as refusal:
            answer(service, told.step("s"))
        assert (refusal.value.field, refusal.value.allowed) == ("query", "histories of up to 383 tokens")
        assert session_ids(service) == ["other"]
        assert answer(service, told.part(0, 383).step("s"))["length"].item() == 383


def test_beyond_max_sessions_the_one_used_longest_ago_goes() -> None:
    token = history(1)
    with serving(max_sessions=2) as service:
        for name in ("a", "b", "a", "c"):
            answer(service, token.step(name))
        assert session_ids(service) == ["a", "c"]
        outcomes = service.execute([token.step(name) for name in ("a", "d", "e")])
        assert [type(outcome) for outcome in outcomes] == [dict, dict, Unavailable]


def test_a_batch_that_needs_more_open_pages_than_there_are_runs_in_turns() -> None:
    told = history(2048, num_kv_heads=1)
    with serving(num_heads=2, num_kv_heads=1, codec="int8", max_memory_mb=7) as service:
        batch = [told.step(f"s{index}") for index in range(6)]
        assert service.snapshot().num_pages["raw", "free"] < 6 * 2048 // 64
        outcomes: list[Any] = service.execute(batch)
        assert [outcome["length"].item() for outcome in outcomes] == [2048] * 6
        assert all(np.array_equal(outcome["output"], outcomes[0]["output"]) for outcome in outcomes)


def test_closing_frees_every_page() -> None:
    with serving(codec="int8") as service:
        total = num_pages(service, "free")
        for name, num_tokens in (("a", 63), ("b", 64), ("c", 200)):
            answer(service, history(num_tokens).step(name))
        for name in ("c", "a", "b"):
            operate(service, op="close", session_id=name)
        assert num_pages(service, "free") == total


MAX_HISTORY_TOKENS = 400


class Sessions(RuleBasedStateMachine):
    """Steps begun, committed and rolled back in any order over a pool that is too small."""

    def __init__(self) -> None:
        super().__init__()
        store = PageStore(PageCount(raw=12, sealed=6), LeastRecentlyUsed())
        self.sessions = AttentionSessions(
            KVCache(store, sink_pages=1), max_sessions=4, max_history_tokens=MAX_HISTORY_TOKENS
        )
        self.lengths: dict[str, int] = {}

    @rule(
        steps=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 200), min_size=1, max_size=4),
        succeeds=st.booleans(),
    )
    def run_batch(self, steps: dict[str, int], succeeds: bool) -> None:
        """A step of each session, all of them committed or all rolled back."""
        begun = []
        for name, num_new in steps.items():
            length = self.lengths.get(name, 0)
            if length + num_new > MAX_HISTORY_TOKENS:
                with pytest.raises(InvalidArgument):
                    self.sessions.begin_step(name, length, num_new, steps.keys())
                continue
            try:
                session = self.sessions.begin_step(name, length, num_new, steps.keys())
            except Unavailable:
                continue
            assert session.num_tokens == length
            begun.append((name, session, num_new))
        for name, session, num_new in begun:
            if succeeds:
                self.sessions.commit(session, num_new)
                self.lengths[name] = session.num_tokens
            else:
                self.sessions.roll_back(session)
        kept = {session.session_id for session in self.sessions}
        assert all(name in kept for name in steps if name in self.lengths)
        self.lengths = {name: length for name, length in self.lengths.items() if name in kept}

    @rule(name=st.sampled_from("abcdef"))
    def close(self, name: str) -> None:
        """One session ends, if it is there."""
        if name in self.lengths:
            assert self.sessions.close(name) == self.lengths.pop(name)
        else:
            with pytest.raises(NotFound):
                self.sessions.close(name)

    @invariant()
    def pages_add_up(self) -> None:
        """Every page is held by one session or free, and lengths are what was committed."""
        self.sessions.check_integrity()
        assert {session.session_id: session.num_tokens for session in self.sessions} == self.lengths
        if not self.lengths:
            free = [count for (_, state), count in self.sessions.num_pages().items() if state is PageState.FREE]
            assert sum(free) == 18


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
