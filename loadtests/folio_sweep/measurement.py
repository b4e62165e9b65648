"""From the requests of one load level to its figures.

Time to first token, inter-token latency and request latency are computed here, from timestamps: perf_analyzer's own
summary takes the last response for the first, counts an empty FINAL response, and knows no tokens. Where requests have
a schedule, latencies count from the scheduled start, so that a late generator cannot flatter the server.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from folio_sweep.errors import LevelFailed
from folio_sweep.profile_export import Request

NS_PER_MS = 1e6
NS_PER_S = 1e9


@dataclass(frozen=True)
class Percentiles:
    """A distribution, in milliseconds; each value is one that was measured (nearest rank)."""

    p50_ms: float
    p95_ms: float
    p99_ms: float

    @classmethod
    def of(cls, values_ms: Sequence[float]) -> Percentiles | None:
        """The percentiles of some values; None of none."""
        if not values_ms:
            return None
        ordered = sorted(values_ms)
        ranks = (ordered[math.ceil(len(ordered) * share) - 1] for share in (0.5, 0.95, 0.99))
        return cls(*ranks)


@dataclass(frozen=True)
class Measurement:
    """The figures of one load level.

    Attributes:
        num_requests: requests sent, all of them answered.
        num_answers: tokens that came back; of an attention model steps.
        duration_s: from the first request to the last response.
        latency: from a request's start to its last token.
        first_token: from a request's start to its first token.
        inter_token: between two tokens of a request; None where requests bring one token each.
        send_lag: how late requests were sent; None where they have no schedule.
        mean_prompt_tokens: of the requests that say; None of none.
        mean_cached_tokens: prompt tokens that were not computed again, as above.
    """

    num_requests: int
    num_answers: int
    duration_s: float
    latency: Percentiles
    first_token: Percentiles
    inter_token: Percentiles | None
    send_lag: Percentiles | None
    mean_prompt_tokens: float | None
    mean_cached_tokens: float | None

    @property
    def requests_per_s(self) -> float:
        """Requests answered a second."""
        return self.num_requests / self.duration_s

    @property
    def answers_per_s(self) -> float:
        """Tokens, or steps, received a second."""
        return self.num_answers / self.duration_s


def measure(requests: Sequence[Request], request_rate: float | None = None) -> Measurement:
    """The figures of a level.

    Args:
        requests: in the order in which they were sent.
        request_rate: requests a second, evenly spaced, that were to be sent; None where each followed on an answer.

    Raises:
        LevelFailed: there are no requests, or one of them brought no token.
    """
    check_answers(requests)
    starts_ns = _starts_ns(requests, request_rate)
    lags_ms = [(request.sent_ns - start) / NS_PER_MS for request, start in zip(requests, starts_ns, strict=True)]
    tokens_ns = [list(_token_times_ns(request)) for request in requests]
    answered = list(zip(starts_ns, tokens_ns, strict=True))
    latency = Percentiles.of([(times[-1] - start) / NS_PER_MS for start, times in answered])
    first_token = Percentiles.of([(times[0] - start) / NS_PER_MS for start, times in answered])
    assert latency is not None, "there are requests"
    assert first_token is not None, "there are requests"
    return Measurement(
        num_requests=len(requests),
        num_answers=sum(map(len, tokens_ns)),
        duration_s=(max(times[-1] for times in tokens_ns) - min(starts_ns)) / NS_PER_S,
        latency=latency,
        first_token=first_token,
        inter_token=Percentiles.of([gap for request in requests for gap in _token_gaps_ms(request)]),
        send_lag=Percentiles.of(lags_ms) if request_rate else None,
        mean_prompt_tokens=_mean([_first(request, "num_prompt_tokens") for request in requests]),
        mean_cached_tokens=_mean([_first(request, "num_cached_tokens") for request in requests]),
    )


def check_answers(requests: Sequence[Request]) -> None:
    """Refuses a level that says nothing about the server.

    Raises:
        LevelFailed: no requests, one without a token, or a step whose session has another length than it should.
    """
    if not requests:
        raise LevelFailed("perf_analyzer exported no requests.")
    empty = sum(not any(response.num_tokens for response in request.responses) for request in requests)
    if empty:
        raise LevelFailed(f"{empty} of {len(requests)} requests were answered without a token.")
    wrong = sum(not _has_right_length(request) for request in requests)
    if wrong:
        raise LevelFailed(f"{wrong} of {len(requests)} steps left their session with a wrong length.")


def _has_right_length(request: Request) -> bool:
    """Whether a session has grown past the position that a step named."""
    lengths = [response.length for response in request.responses if response.length is not None]
    return request.position is None or not lengths or lengths[-1] > request.position


def _starts_ns(requests: Sequence[Request], request_rate: float | None) -> list[float]:
    """When each request was to start: when it was sent, or by the schedule that no request was sent ahead of."""
    sent = [float(request.sent_ns) for request in requests]
    if not request_rate:
        return sent
    offsets = [index * NS_PER_S / request_rate for index in range(len(sent))]
    first = min(time - offset for time, offset in zip(sent, offsets, strict=True))
    return [first + offset for offset in offsets]


def _token_times_ns(request: Request) -> Iterator[int]:
    for response in request.responses:
        yield from itertools.repeat(response.time_ns, response.num_tokens)


def _token_gaps_ms(request: Request) -> Iterator[float]:
    """Time between tokens; the tokens of one response share the time since the response before it."""
    with_tokens = [response for response in request.responses if response.num_tokens]
    for before, response in itertools.pairwise(with_tokens):
        gap_ms = (response.time_ns - before.time_ns) / NS_PER_MS / response.num_tokens
        yield from itertools.repeat(gap_ms, response.num_tokens)


def _first(request: Request, name: str) -> int | None:
    """What the first response to say so says."""
    values = (getattr(response, name) for response in request.responses)
    return next((value for value in values if value is not None), None)


def _mean(values: Sequence[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
