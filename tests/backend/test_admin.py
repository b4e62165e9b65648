"""Operations on sessions and requests: what each changes, what it leaves alone, and whose things it can touch."""

from __future__ import annotations

import pytest
from transformers import PreTrainedModel

from folio_backend.admin import Admin, Answer
from folio_backend.cache.page import PageKind, PageState
from folio_backend.errors import AlreadyExists, Cancelled, InvalidArgument, NotFound, Unavailable
from folio_backend.generation import Prompt
from folio_backend.request import Operation
from tests.backend.conftest import NewEngine
from tests.backend.engine_harness import EngineHarness, text_request
from tests.backend.run_equality import assert_as_model, run_of
from tests.backend.tiny_models import random_ids


def operate(engine: EngineHarness, name: str, tenant: str = "default", **arguments: object) -> Answer:
    return Admin(engine.engine, {"codec": "none"}, lambda: 3).run(Operation(name, arguments, tenant=tenant))


def talk(engine: EngineHarness, session_id: str = "s", num_ids: int = 150) -> list[int]:
    """One turn; returns the session's history."""
    engine.submit_ids(random_ids(num_ids), 10, session_id=session_id)
    engine.run()
    session = engine.sessions.find("default", session_id)
    assert session is not None
    return list(session.token_ids)


def assert_goes_on(engine: EngineHarness, model: PreTrainedModel, session_id: str, history: list[int]) -> int:
    """The next turn continues exactly this history; returns the tokens that were not computed again."""
    turn = engine.submit_ids([9, 8, 7], 10, session_id=session_id)
    engine.run()
    assert_as_model(model, [*history, 9, 8, 7], run_of(engine, turn))
    return turn.answer.responses[0].num_cached_tokens or 0


def test_sessions_are_described(new_engine: NewEngine) -> None:
    engine = new_engine()
    talk(engine)
    expected = {"session_id": "s", "num_tokens": 160, "num_resident_tokens": 159, "num_turns": 1, "idle": True}
    assert operate(engine, "sessions") == {"sessions": [expected]}
    assert operate(engine, "sessions", tenant="another") == {"sessions": []}


def test_a_running_session_is_described_too(new_engine: NewEngine) -> None:
    engine = new_engine()
    engine.submit_ids(random_ids(100), 10, session_id="s")
    engine.steps(3)
    expected = {"session_id": "s", "num_tokens": 0, "num_resident_tokens": 102, "num_turns": 0, "idle": False}
    assert operate(engine, "sessions") == {"sessions": [expected]}
    engine.run()


def test_a_closed_session_frees_its_pages_and_is_gone(new_engine: NewEngine) -> None:
    engine = new_engine()
    talk(engine)
    assert operate(engine, "close", session_id="s") == {"closed": "s", "num_tokens": 160}
    for kind in PageKind:
        assert engine.num_pages(kind, PageState.FREE) == engine.cache.store.num_pages.of(kind)
    with pytest.raises(NotFound):
        operate(engine, "close", session_id="s")


def test_closing_one_session_leaves_the_pages_that_another_needs(new_engine: NewEngine, llama: PreTrainedModel) -> None:
    engine = new_engine()
    history = talk(engine)
    operate(engine, "fork", session_id="s", new_session_id="t")
    operate(engine, "close", session_id="s")
    assert assert_goes_on(engine, llama, "t", history) == len(history) - 1


def test_a_fork_and_its_source_go_on_apart(new_engine: NewEngine, llama: PreTrainedModel) -> None:
    engine = new_engine()
    history = talk(engine)
    described = operate(engine, "fork", session_id="s", new_session_id="t")
    assert described["num_tokens"] == described["num_resident_tokens"] + 1 == 160  # type: ignore[operator]
    for session_id, word in (("s", 11), ("t", 12)):
        turn = engine.submit_ids([word] * 5, 10, session_id=session_id)
        engine.run()
        assert turn.answer.responses[0].num_cached_tokens == 159
        assert_as_model(llama, history + [word] * 5, run_of(engine, turn))


def test_a_fork_when_there_is_room_for_one_session_only_keeps_the_fork(
    new_engine: NewEngine, llama: PreTrainedModel
) -> None:
    engine = new_engine(max_sessions=1)
    history = talk(engine)
    operate(engine, "fork", session_id="s", new_session_id="t")
    assert [session.session_id for session in engine.sessions] == ["t"]
    assert assert_goes_on(engine, llama, "t", history) == len(history) - 1


def test_a_fork_takes_no_name_that_is_there(new_engine: NewEngine) -> None:
    engine = new_engine()
    talk(engine)
    with pytest.raises(AlreadyExists) as refused:
        operate(engine, "fork", session_id="s", new_session_id="s")
    assert refused.value.field == "new_session_id"


@pytest.mark.parametrize(("num_tokens", "num_cached"), [(160, 159), (140, 140), (128, 128), (100, 64), (0, 0)])
def test_a_truncated_session_goes_on_from_the_cut(
    num_tokens: int, num_cached: int, new_engine: NewEngine, llama: PreTrainedModel
) -> None:
    engine = new_engine()
    history = talk(engine)
    described = operate(engine, "truncate", session_id="s", num_tokens=num_tokens)
    assert described["num_tokens"] == num_tokens
    assert assert_goes_on(engine, llama, "s", history[:num_tokens]) == num_cached


def test_a_cut_beyond_the_end_is_refused(new_engine: NewEngine) -> None:
    engine = new_engine()
    talk(engine)
    with pytest.raises(InvalidArgument, match="num_tokens is 161 but the session holds 160"):
        operate(engine, "truncate", session_id="s", num_tokens=161)


@pytest.mark.parametrize("name", ["close", "fork", "truncate"])
def test_a_session_in_use_is_left_alone(name: str, new_engine: NewEngine) -> None:
    engine = new_engine()
    engine.submit_ids(random_ids(20), 5, session_id="s")
    with pytest.raises(Unavailable) as refused:
        operate(engine, name, session_id="s", new_session_id="t", num_tokens=0)
    assert refused.value.retry_after_ms is not None
    engine.run()


@pytest.mark.parametrize("name", ["close", "fork", "truncate"])
def test_another_tenant_s_session_is_not_found(name: str, new_engine: NewEngine) -> None:
    engine = new_engine()
    talk(engine)
    with pytest.raises(NotFound):
        operate(engine, name, tenant="another", session_id="s", new_session_id="t", num_tokens=0)


def test_cancel_by_request_and_by_session(new_engine: NewEngine) -> None:
    engine = new_engine()
    by_request = engine.submit(text_request(request_id="r", max_tokens=50, ignore_eos=True), Prompt([5]))
    by_session = [engine.submit_ids([6], 50, session_id="s") for _ in range(2)]
    other = engine.submit_ids([7], 5)
    engine.steps(2)
    with pytest.raises(NotFound):
        operate(engine, "cancel", tenant="another", request_id="r")
    assert operate(engine, "cancel", request_id="r") == {"cancelled": 1}
    assert operate(engine, "cancel", session_id="s") == {"cancelled": 2}
    engine.run()
    for turn in (by_request, *by_session):
        assert isinstance(turn.answer.error, Cancelled)
    assert other.answer.error is None
    with pytest.raises(NotFound):
        operate(engine, "cancel", request_id="r")


def test_stats_count_what_there_is(new_engine: NewEngine) -> None:
    engine = new_engine(max_running=1)
    talk(engine)
    engine.submit_ids(random_ids(70), 5)
    engine.submit_ids(random_ids(70), 5)
    engine.steps(1)
    stats = operate(engine, "stats")
    assert stats["requests"] == {"running": 1, "waiting": 1}
    assert stats["sessions"] == 1
    assert stats["recompilations"] == 3
    assert stats["pages"]["raw"] == {"free": 76, "cached": 1, "held": 3, "loading": 0}  # type: ignore[index]
    assert stats["pages"]["sealed"] == {"free": 199, "cached": 1, "held": 0, "loading": 0}  # type: ignore[index]
    assert stats["memory_usage_bytes"] == (4 + 1) * 2 * 2 * 64 * 64 * 4
    assert stats["bytes_per_token_fp16"] == 2 * 2 * 64 * 2
    engine.run()


def test_health_reports_pages_that_do_not_add_up(new_engine: NewEngine) -> None:
    engine = new_engine()
    assert operate(engine, "health")["healthy"] is True
    engine.engine.integrity_error = "pages lost"
    assert operate(engine, "health")["healthy"] is False
