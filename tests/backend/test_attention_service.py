"""An attention model answers with causal attention over each session's whole history, however it arrives."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from folio_backend.errors import ConfigurationError, InvalidArgument, NotFound
from folio_backend.server_request import ServerRequest
from folio_kernels.pool import AttentionBatch
from tests.backend.attention_inputs import answer, expected_output, history, num_pages, operate, serving

TOLERANCE = 1e-4
CODECS = ["none", "int8", "k8v4", "int4", "k4v2"]
STEP_LENGTHS = st.lists(st.integers(1, 5) | st.sampled_from([1, 63, 64, 65, 130]), min_size=1, max_size=5)


def assert_equal(output: Any, expected: Any) -> None:
    np.testing.assert_allclose(output, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("codec", CODECS)
@settings(max_examples=12, deadline=None)
@given(lengths_of_sessions=st.lists(STEP_LENGTHS, min_size=1, max_size=3), data=st.data())
def test_any_cut_into_steps_and_batches_is_attention_over_the_history(
    codec: str, lengths_of_sessions: list[list[int]], data: st.DataObject
) -> None:
    arrivals = data.draw(st.permutations([i for i, lengths in enumerate(lengths_of_sessions) for _ in lengths]))
    histories = [history(sum(lengths), seed) for seed, lengths in enumerate(lengths_of_sessions)]
    outputs: list[list[Any]] = [[] for _ in histories]
    held = [0] * len(histories)
    waiting = [iter(lengths) for lengths in lengths_of_sessions]
    with serving(codec=codec, max_memory_mb=12) as service:
        while arrivals:
            num_batched = data.draw(st.integers(1, len(arrivals)))
            batch, arrivals = arrivals[:num_batched], arrivals[num_batched:]
            requests = []
            for session in batch:
                end = held[session] + next(waiting[session])
                part = histories[session].part(held[session], end)
                requests.append(part.step(f"s{session}", data.draw(st.sampled_from([None, held[session]]))))
                held[session] = end
            for session, outcome in zip(batch, service.execute(requests), strict=True):
                assert isinstance(outcome, dict), outcome
                outputs[session].append(outcome["output"][0])
                assert outcome["length"].dtype == np.int32
                assert outcome["length"].tolist() == [[sum(map(len, outputs[session]))]]
    for told, parts in zip(histories, outputs, strict=True):
        assert_equal(np.concatenate(parts), expected_output(told, codec))


@pytest.mark.parametrize("codec", CODECS)
def test_a_page_that_a_single_token_fills_is_read_as_it_is_stored(codec: str) -> None:
    told = history(131)
    with serving(codec=codec) as service:
        for start, end in ((0, 127), (127, 128), (128, 129), (129, 131)):
            output = answer(service, told.part(start, end).step("s", start))["output"][0]
            assert_equal(output, expected_output(told.part(0, end), codec)[start:])


def test_float16_tensors_are_answered_in_float16() -> None:
    told = history(130, dtype="float16")
    with serving(dtype="float16", codec="none") as service:
        outcome = answer(service, told.step("s"))
    assert outcome["output"].dtype == np.float16
    assert outcome["output"].shape == (1, 130, 4, 64)
    np.testing.assert_allclose(outcome["output"][0], expected_output(told, "none"), rtol=0, atol=2e-3)


def test_two_steps_of_one_session_in_one_batch_apply_in_order() -> None:
    told, other = history(100), history(5, seed=1)
    batch = [told.part(0, 40).step("s"), other.step("t"), told.part(40, 41).step("s"), told.part(41, 100).step("s")]
    with serving() as service:
        outcomes: list[Any] = service.execute(batch)
    assert [outcome["length"].item() for outcome in outcomes] == [40, 5, 41, 100]
    output = np.concatenate([outcomes[index]["output"][0] for index in (0, 2, 3)])
    assert_equal(output, expected_output(told, "none"))
    assert_equal(outcomes[1]["output"][0], expected_output(other, "none"))


def test_one_launch_serves_steps_of_unequal_length_over_unequal_histories(monkeypatch: pytest.MonkeyPatch) -> None:
    histories = [history(100 + 9 * index, seed=index) for index in range(16)]
    cuts = [1 + 5 * index for index in range(16)]
    with serving(max_memory_mb=16) as service:
        for index, (told, cut) in enumerate(zip(histories, cuts, strict=True)):
            answer(service, told.part(0, cut).step(f"s{index}"))
        operations, num_launched = service._launcher._operations, []
        attend = operations.attend

        def counted(layer: int, query: torch.Tensor, batch: AttentionBatch, scale: float) -> torch.Tensor:
            num_launched.append(len(batch.lengths))
            return attend(layer, query, batch, scale)

        monkeypatch.setattr(operations, "attend", counted)
        rest = [told.part(cut, len(told.key)) for told, cut in zip(histories, cuts, strict=True)]
        outcomes: list[Any] = service.execute([part.step(f"s{index}") for index, part in enumerate(rest)])
    assert num_launched == [16]
    for told, cut, outcome in zip(histories, cuts, outcomes, strict=True):
        assert_equal(outcome["output"][0], expected_output(told, "none")[cut:])


def test_a_refused_step_in_a_batch_leaves_the_others_alone() -> None:
    good, bad = history(70), history(3)
    bad.key[1, 0, 0] = np.nan
    with serving() as service:
        outcomes: list[Any] = service.execute([bad.step("bad"), good.step("good"), bad.step("good", 70)])
        assert [type(outcome) for outcome in outcomes] == [InvalidArgument, dict, InvalidArgument]
        assert_equal(outcomes[1]["output"][0], expected_output(good, "none"))
        with pytest.raises(NotFound):
            operate(service, op="close", session_id="bad")


def test_a_step_repeated_after_a_time_out_changes_nothing() -> None:
    told = history(80)
    with serving() as service:
        answer(service, told.part(0, 70).step("s", 0))
        answer(service, told.part(70, 71).step("s", 70))
        for position in (70, 0):
            with pytest.raises(InvalidArgument, match=rf"position is {position} .* holds 71 tokens") as refusal:
                answer(service, told.part(70, 71).step("s", position))
            assert (refusal.value.field, refusal.value.allowed) == ("position", "71")
        outcome = answer(service, told.part(71, 80).step("s", 71))
    assert_equal(outcome["output"][0], expected_output(told, "none")[71:])


def test_the_sequence_id_names_a_session_where_nothing_else_does() -> None:
    told = history(2)
    with serving() as service:
        for correlation_id, position in ((7, 0), ("7", 2), (7, 4)):
            inputs = told.inputs()
            request = ServerRequest(inputs, {"position": position}, correlation_id=correlation_id)
            assert answer(service, request)["length"].item() == position + 2
        assert operate(service, op="sessions") == {"sessions": [{"session_id": "7", "num_tokens": 6}]}


def test_operations_show_and_end_sessions_between_the_steps_around_them() -> None:
    told = history(200)
    with serving(codec="int4") as service:
        answer(service, told.step("s"))
        stats = operate(service, op="stats")
        assert stats["sessions"] == 1
        assert stats["codec"] == "int4"
        assert stats["pages"]["raw"]["held"] == 2  # the sink and the open page
        assert stats["pages"]["sealed"]["held"] == 2
        assert stats["memory_usage_bytes"] == 64 * (2 * stats["bytes_per_token_raw"] + 2 * stats["bytes_per_token"])
        assert operate(service, op="health") == {"healthy": True, "integrity_error": None}
        close = ServerRequest({"op": np.array([[b'{"op": "close", "session_id": "s"}']], dtype=object)}, {})
        outcomes: list[Any] = service.execute([told.part(0, 1).step("s", 200), close, told.part(0, 9).step("s", 0)])
        assert [outcomes[0]["length"].item(), outcomes[2]["length"].item()] == [201, 9]
        assert operate(service, op="close", session_id="s") == {"closed": "s", "num_tokens": 9}
        assert num_pages(service, "held") == 0


def test_operations_that_show_others_need_the_admin_token() -> None:
    with serving(admin_token="secret") as service:  # noqa: S106 - a test's own
        with pytest.raises(InvalidArgument) as refusal:
            operate(service, op="sessions")
        assert refusal.value.field == "admin_token"
        assert operate(service, op="sessions", admin_token="secret") == {"sessions": []}  # noqa: S106


def test_a_snapshot_taken_while_steps_run_adds_up() -> None:
    with serving() as service:
        total = sum(service.snapshot().num_pages.values())
        sums, has_looked, is_over = set(), threading.Event(), threading.Event()

        def look() -> None:
            while not is_over.is_set():
                sums.add(sum(service.snapshot().num_pages.values()))
                has_looked.set()

        thread = threading.Thread(target=look)
        thread.start()
        for index in range(20):
            answer(service, history(70).step(f"s{index % 5}"))
        has_looked.wait()
        is_over.set()
        thread.join()
        state = service.snapshot()
        assert sums == {total}
        assert state.num_sessions == 5
        assert 0 < state.memory_usage_bytes < state.memory_limit_bytes <= 8 * 2**20


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"dtype": "bfloat16"}, "dtype is bfloat16"),
        ({"head_dim": 80}, "head_dim is 80"),
        ({"max_memory_mb": 1}, "max_memory_mb is 1"),
    ],
)
def test_settings_that_cannot_be_served_are_refused_by_name(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named), serving(**wrong):
        pass


def test_loading_says_when_the_pool_cannot_hold_the_longest_history() -> None:
    said: list[str] = []
    with serving(said.append, max_tokens=256) as service:
        assert operate(service, op="stats")["max_history_tokens"] == 383
    assert any("383 tokens" in sentence and "8192" in sentence for sentence in said)
