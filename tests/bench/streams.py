"""Generations on an engine in this process, timed token by token."""

from __future__ import annotations

import queue
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from folio_backend.engine import Engine
from folio_backend.errors import FolioError
from folio_backend.generation import Prompt
from folio_backend.request import GenerateRequest, OutputOptions
from folio_backend.request_timings import RequestTimings
from folio_backend.responses import GenerateResponse
from folio_backend.sampling_parameters import SamplingParameters

STREAM_TIMEOUT_S = 300


@dataclass
class TimedStream:
    """One generation's responses, each with the time it came at."""

    submitted_s: float = field(default_factory=time.perf_counter)
    arrivals: queue.SimpleQueue[tuple[float, GenerateResponse | FolioError]] = field(default_factory=queue.SimpleQueue)
    token_times_s: list[float] = field(default_factory=list)
    num_cached_tokens: int = 0

    def send(self, response: GenerateResponse) -> None:
        """See `ResponseChannel.send`."""
        self.arrivals.put((time.perf_counter(), response))

    def fail(self, error: FolioError) -> None:
        """See `ResponseChannel.fail`."""
        self.arrivals.put((time.perf_counter(), error))

    def end(self, timings: RequestTimings) -> None:
        """See `ResponseChannel.end`; here times are taken where they arrive."""

    def wait(self) -> None:
        """Collects everything up to the last response."""
        is_final = False
        while not is_final:
            time_s, response = self.arrivals.get(timeout=STREAM_TIMEOUT_S)
            if isinstance(response, FolioError):
                raise response
            self.num_cached_tokens += response.num_cached_tokens or 0
            self.token_times_s += [time_s] * response.num_output_tokens[0]
            is_final = response.is_final

    @property
    def ttft_s(self) -> float:
        """From submission to the first token."""
        return self.token_times_s[0] - self.submitted_s

    @property
    def tokens_per_s(self) -> float:
        """Speed behind the first token."""
        return (len(self.token_times_s) - 1) / (self.token_times_s[-1] - self.token_times_s[0])


def start_stream(
    engine: Engine, token_ids: Sequence[int], num_tokens: int, session_id: str | None = None
) -> TimedStream:
    """Submits a greedy generation of exactly `num_tokens` tokens."""
    request = GenerateRequest(
        request_id="",
        text="",
        messages=None,
        sampling=SamplingParameters(temperature=0.0, max_tokens=num_tokens, ignore_eos=True),
        output=OutputOptions(
            stream=True,
            exclude_input=True,
            finish_reason=False,
            cumulative_logprob=False,
            logprobs=False,
            num_input_tokens=False,
            num_output_tokens=False,
        ),
        session_id=session_id,
        session_length=None,
    )
    stream = TimedStream()
    engine.submit(request, Prompt(list(token_ids)), stream)
    return stream


def run_streams(engine: Engine, prompts: Sequence[Sequence[int]], num_tokens: int) -> float:
    """Runs generations at once; returns tokens per second over all of them, prefill included."""
    started_s = time.perf_counter()
    streams = [start_stream(engine, prompt, num_tokens) for prompt in prompts]
    for stream in streams:
        stream.wait()
    return len(prompts) * num_tokens / (time.perf_counter() - started_s)
