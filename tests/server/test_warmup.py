"""Servers with a configuration of their own: warmed up, beside another one, badly configured, and at their end."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.server.generate_client import GenerateClient, sampling, wait_until
from tests.server.grpc_stream import Refused
from tests.server.metrics_page import MetricsPage
from tests.server.running_server import RunningServer
from tests.server.small_server import WARMUP_SESSION, generate_repository

if TYPE_CHECKING:
    from pathlib import Path

    from tests.server.grpc_stream import Value

NUM_LAST_TOKENS = 80
TURN = {"text_input": "The capital of France is", "sampling_parameters": sampling(max_tokens=2)}


def test_the_servers_own_warmup_has_run(small_server: RunningServer) -> None:
    client = GenerateClient(small_server)
    sessions = {session["session_id"]: session for session in client.operation("sessions")["sessions"]}
    assert sessions[WARMUP_SESSION]["num_turns"] == 1
    assert client.generate(**TURN)["text_output"] == "The capital of France is Paris."
    assert client.operation("stats")["recompilations"] == 0


def test_vllm_names_repeat_what_is_counted(small_server: RunningServer) -> None:
    page = MetricsPage(small_server.metrics_address)
    GenerateClient(small_server).generate(**TURN)
    values = page.settled()
    assert values["vllm:generation_tokens_total{}"] == values["folio_generated_tokens_total{}"] > 0
    assert values["vllm:prompt_tokens_total{}"] == values["folio_prompt_tokens_total{}"] > 0
    count = values["folio_time_to_first_token_seconds_count{}"]
    assert values["vllm:time_to_first_token_seconds_count{}"] == count > 0


def test_two_servers_side_by_side_share_nothing(small_server: RunningServer, client: GenerateClient) -> None:
    other = GenerateClient(small_server)
    answers = [each.generate(**TURN, session_id="side-by-side") for each in (client, other)]
    assert answers[0]["text_output"] == answers[1]["text_output"]
    other.operation("close", session_id="side-by-side")
    with pytest.raises(Refused, match="There is no such session"):
        other.operation("close", session_id="side-by-side")
    client.operation("close", session_id="side-by-side")


def test_an_unknown_parameter_stops_the_load_and_is_named(tmp_path: Path) -> None:
    parameter = '\nparameters { key: "kv_cache_codek" value { string_value: "int4" } }\n'
    server = RunningServer(tmp_path, model_repository=generate_repository(tmp_path, parameter))
    assert server.wait() == 1
    assert "kv_cache_codek" in server.messages()


def test_a_value_out_of_bounds_stops_the_load_and_is_named(tmp_path: Path) -> None:
    repository = generate_repository(tmp_path)
    server = RunningServer(tmp_path, model_repository=repository, environment={"KV_CACHE_CODEC": "int3"})
    assert server.wait() == 1
    assert "KV_CACHE_CODEC" in server.messages()


def test_sigterm_lets_a_stream_finish_and_refuses_what_is_new(
    small_server: RunningServer,
) -> None:
    client = GenerateClient(small_server)

    def is_refused() -> bool:
        try:
            client.generate(text_input="Hello", max_tokens=1, deadline_ms=10)
        except Refused as refusal:
            return "deadline" not in refusal.text
        except OSError:  # it does not listen any more
            return True
        return False

    fields: dict[str, Value] = {
        "text_input": "Once upon a time",
        "stream": True,
        "return_num_output_tokens": True,
        "sampling_parameters": sampling(max_tokens=NUM_LAST_TOKENS, ignore_eos=True),
    }
    with client.stream(fields) as stream:
        responses = [stream.next_response()]
        small_server.signal(signal.SIGTERM)
        wait_until(is_refused)
        responses += list(stream)
    assert sum(int(response.outputs["num_output_tokens"].item()) for response in responses) == NUM_LAST_TOKENS
    assert small_server.wait() == 0  # with no process and no shared memory left
