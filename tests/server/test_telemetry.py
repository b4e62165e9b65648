"""A loaded server's log, spans and metrics: they tell the same of every request, and nothing that a request said."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.http

from folio_backend.launcher.progress import JSON_LINE
from tests.server.fragile_model import FATAL, fragile_repository
from tests.server.generate_client import GenerateClient, sampling, wait_until
from tests.server.grpc_stream import MODEL, Refused
from tests.server.metrics_page import MetricsPage
from tests.server.otlp_receiver import OtlpReceiver, Span
from tests.server.running_server import RunningServer

if TYPE_CHECKING:
    from collections.abc import Iterator

PROMPT, SESSION, KEY = "canary-in-the-prompt", "canary-of-a-session", "canary-of-a-key"
CANARY = "canary"
LONG_PROMPT = f"{PROMPT}, " * 20
PHASES = ["queue", "prefill", "decode", "send"]
ENDLESS = sampling(max_tokens=1500, ignore_eos=True)


@dataclass(frozen=True)
class Told:
    """What a run has told.

    Attributes:
        log: the server's log and the launcher's words.
        lines: the log's JSON, line by line.
        page: the metrics page before the end.
        values: the generate model's series on it.
        bodies: what the receiver of spans got.
        spans: what was in it.
    """

    log: str
    lines: list[dict[str, Any]]
    page: str
    values: dict[str, float]
    bodies: bytes
    spans: list[Span]

    def line(self, request_id: str) -> dict[str, Any]:
        """The one line of a request."""
        (line,) = (line for line in self.lines if line.get("request_id") == request_id)
        return line

    def spans_of(self, request_id: str) -> list[Span]:
        """Folio's spans of a request, in their order."""
        own = [span for span in self.spans if span.service == "folio"]
        trace_id = self.line(request_id)["trace_id"]
        return sorted((span for span in own if span.trace_id == trace_id), key=lambda span: span.start_ns)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """A server under requests of every kind, and what it told from its start to its end."""
    folder = tmp_path_factory.mktemp("telemetry")
    with OtlpReceiver() as receiver:
        server = RunningServer(
            folder,
            model_repository=fragile_repository(folder),
            environment=environment(receiver),
            arguments=arguments(receiver),
        )
        with server:
            send_load(server)
            page = MetricsPage(server.metrics_address)
            values = page.settled()
            text = page.text()
        log = server.log.read_text()
        lines = [json.loads(line[line.index(JSON_LINE) :]) for line in log.splitlines() if JSON_LINE in line]
        yield Told(log + server.messages(), lines, text, values, b"".join(receiver.bodies), receiver.spans())


def environment(receiver: OtlpReceiver) -> dict[str, str]:
    return {
        "KV_CACHE_LOG_FORMAT": "json",
        "KV_CACHE_TRACE_URL": receiver.url,
        "KV_CACHE_ADMIN_TOKEN": KEY,
        "KV_CACHE_COMPILE": "false",
        "KV_CACHE_MAX_MEMORY_MB": "64",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }


def arguments(receiver: OtlpReceiver) -> list[str]:
    settings = ["mode=opentelemetry", f"opentelemetry,url={receiver.url}", "rate=1", "level=TIMESTAMPS"]
    traced = [part for setting in settings for part in ("--trace-config", setting)]
    return [*traced, "--trace-config=opentelemetry,bsp_schedule_delay=200", "--http-header-forward-pattern=x-api-key"]


def send_load(server: RunningServer) -> None:
    """Requests of every kind and end to both models, each with canaries wherever they fit."""
    client = GenerateClient(server)
    for turn in ("turn-1", "turn-2"):
        client.infer(request(LONG_PROMPT, session_id=SESSION), request_id=turn)
    answer = client.generate(text_input=LONG_PROMPT, id="by-http", sampling_parameters=sampling(max_tokens=4))
    assert PROMPT in answer["text_output"]
    refuse(client, request(PROMPT, sampling_parameters=sampling(temperature=-1, stop=PROMPT)), "refused")
    refuse(client, request(LONG_PROMPT * 20), "too-long")
    refuse(client, request(PROMPT + FATAL), "failed")
    refuse(client, request(PROMPT, sampling_parameters=ENDLESS, deadline_ms=100), "too-late")
    with client.stream(request(PROMPT, sampling_parameters=ENDLESS), request_id="cancelled") as stream:
        wait_until(lambda: client.operation("stats")["requests"]["running"] == 1)
        client.operation("cancel", request_id="cancelled")
        with pytest.raises(Refused, match="cancelled"):
            list(stream)
    client.operation("sessions", admin_token=KEY)
    refuse(client, {"op": json.dumps({"op": "sessions", "admin_token": f"not the {KEY}"})}, "wrong-token")
    refuse(client, {"op": json.dumps({"op": "close", "session_id": f"no {SESSION}"})}, "no-session")
    send_steps(server.http_address)


def request(text: str, **fields: str | int) -> dict[str, Any]:
    return {"text_input": text, "sampling_parameters": sampling(max_tokens=4, ignore_eos=True), **fields}


def refuse(client: GenerateClient, fields: dict[str, Any], request_id: str) -> None:
    with pytest.raises(Refused):
        client.infer(fields, request_id=request_id)


def send_steps(address: str) -> None:
    """A step that is taken, one at the wrong position, and one whose header the server forwards as a parameter."""
    zeros = {name: np.zeros((1, 5, heads, 64), np.float32) for name, heads in (("query", 9), ("key", 3), ("value", 3))}
    session_id = np.array([[SESSION.encode()]], dtype=object)
    with tritonclient.http.InferenceServerClient(address) as client:

        def step(request_id: str, position: int, headers: dict[str, str] | None = None) -> None:
            arrays = {**zeros, "session_id": session_id, "position": np.array([[position]], np.int32)}
            tensors = []
            for name, array in arrays.items():
                kind = {"O": "BYTES", "f": "FP32", "i": "INT32"}[array.dtype.kind]
                tensors.append(tritonclient.http.InferInput(name, array.shape, kind))
                tensors[-1].set_data_from_numpy(array)
            client.infer("attention", tensors, request_id=request_id, headers=headers)

        step("step", 0)
        for name, position, headers in (("wrong-step", 3, None), ("step-with-key", 5, {"X-API-Key": KEY})):
            with pytest.raises(tritonclient.http.InferenceServerException):
                step(name, position, headers)


def test_nothing_that_a_request_said_is_told(told: Told) -> None:
    places = {"log": told.log, "metrics": told.page, "spans": told.bodies.decode(errors="replace")}
    assert all(places.values())
    leaks = {place: text[text.index(CANARY) - 100 :][:300] for place, text in places.items() if CANARY in text}
    assert leaks == {}


ENDS = {
    "turn-1": ("generate", "ok", None, "length"),
    "turn-2": ("generate", "ok", None, "length"),
    "by-http": ("generate", "ok", None, "length"),
    "refused": ("generate", "refused", "INVALID_ARG", "invalidargument"),
    "too-long": ("generate", "refused", "INVALID_ARG", "prompt_length"),
    "failed": ("generate", "failed", "INTERNAL", "internal"),
    "too-late": ("generate", "cancelled", "CANCELLED", "cancelled"),
    "cancelled": ("generate", "cancelled", "CANCELLED", "cancelled"),
    "wrong-token": ("generate", "refused", "INVALID_ARG", "admin_token"),
    "no-session": ("generate", "failed", "NOT_FOUND", "notfound"),
    "step": ("attention", "ok", None, None),
    "wrong-step": ("attention", "refused", "INVALID_ARG", "position"),
    "step-with-key": ("attention", "refused", "INVALID_ARG", "invalidargument"),
}


@pytest.mark.parametrize(("request_id", "end"), ENDS.items(), ids=ENDS)
def test_every_request_has_a_line(told: Told, request_id: str, end: tuple[str | None, ...]) -> None:
    line = told.line(request_id)
    assert (line["task"], line["outcome"], line.get("code"), line.get("reason")) == end
    assert line["event"] == ("operation" if request_id == "no-session" else "request")
    assert line["total_s"] >= 0


def test_a_line_says_what_a_request_took(told: Told) -> None:
    line = told.line("turn-2")
    assert line["level"] == "info"
    assert line["model"] == MODEL
    assert line["num_generated_tokens"] == 4
    assert 0 < line["num_cached_tokens"] < line["num_prompt_tokens"]
    assert line["ttft_s"] == pytest.approx(line["queue_s"] + line["prefill_s"], abs=1e-5)
    assert line["total_s"] == pytest.approx(sum(line[f"{phase}_s"] for phase in PHASES), abs=1e-5)
    assert told.line("step").items() >= {"num_tokens": 5, "num_history_tokens": 5}.items()


def test_a_request_without_a_name_gets_one(told: Told) -> None:
    unnamed = [line["request_id"] for line in told.lines if line.get("operation") == "stats"]
    assert unnamed
    assert len(set(unnamed)) == len(unnamed)


def test_loading_is_told_in_the_log_and_to_the_person_who_starts_it(told: Told) -> None:
    said = [line["message"] for line in told.lines if line["event"] == "load" and line["task"] == "generate"]
    assert said[-1] == "ready"
    assert "  comparing paged attention with the model's own\n" in told.log
    assert "[folio]" not in told.log


@pytest.mark.parametrize("request_id", ["turn-1", "turn-2", "by-http", "step"])
def test_spans_are_children_of_the_server_s_and_as_long_as_the_log_says(told: Told, request_id: str) -> None:
    line, spans = told.line(request_id), told.spans_of(request_id)
    assert [span.name for span in spans] == (["attend"] if request_id == "step" else PHASES)
    (parent,) = (span for span in told.spans if span.span_id == spans[0].parent_id)
    assert parent.name == line["model"]
    assert {span.parent_id for span in spans} == {parent.span_id}
    assert [span.length_s for span in spans] == pytest.approx([line[f"{span.name}_s"] for span in spans], abs=1e-5)
    assert all(before.end_ns == after.start_ns for before, after in pairwise(spans))
    counts = {f"folio.{name}": value for name, value in line.items() if name.startswith("num_")}
    assert {name: value for name, value in spans[0].attributes.items() if "num_" in name} == counts
    assert parent.start_ns <= spans[0].start_ns


def test_early_ends_show_where_the_time_went(told: Told) -> None:
    assert [span.name for span in told.spans_of("failed")] == ["queue", "prefill", "send"]
    assert [span.name for span in told.spans_of("cancelled")] in (PHASES, ["queue", "prefill", "send"])
    assert told.spans_of("refused") == []


@pytest.mark.parametrize("phase", ["queue", "decode", "send"])
def test_metrics_sum_up_what_the_lines_say(told: Told, phase: str) -> None:
    lengths_s = [line[f"{phase}_s"] for line in told.lines if f"{phase}_s" in line]
    assert told.values[f"folio_{phase}_seconds_count{{}}"] == len(lengths_s)
    assert told.values[f"folio_{phase}_seconds_sum{{}}"] == pytest.approx(sum(lengths_s), abs=1e-4)


def test_prefills_are_those_that_led_to_a_token(told: Told) -> None:
    lengths_s = [line["prefill_s"] for line in told.lines if "ttft_s" in line]
    assert told.values["folio_prefill_seconds_count{}"] == len(lengths_s)
    assert told.values["folio_prefill_seconds_sum{}"] == pytest.approx(sum(lengths_s), abs=1e-4)


def test_an_operation_that_finds_nothing_is_no_rejection(told: Told) -> None:
    reasons = {
        name: value for name, value in told.values.items() if name.startswith("folio_rejections_total") and value
    }
    assert reasons == {
        f"folio_rejections_total{{reason={reason}}}": 1
        for reason in ("invalidargument", "prompt_length", "admin_token")
    }
