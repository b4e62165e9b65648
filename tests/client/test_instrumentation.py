"""A client's own metrics."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from folio_client import Client, RetryPolicy, ServerError, Unavailable
from folio_client.instrumentation import ClientMetrics
from tests.client.scripted_transport import ScriptedTransport, piece


def test_requests_are_counted_and_measured() -> None:
    registry = CollectorRegistry()
    transport = ScriptedTransport(
        [Unavailable("busy")],
        [piece("Hel"), piece("lo", "stop")],
        [ServerError("no")],
        [piece("Hi"), piece("", "stop")],
    )
    retry = RetryPolicy(first_delay_s=0.001)
    with Client(transport=transport, observer=ClientMetrics(registry), retry=retry) as client:
        client.generate("one")
        with pytest.raises(ServerError):
            client.generate("two")
        with client.stream("three") as stream:
            next(stream)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"folio_client_{name}", {"model": "smollm2", **labels})

    outcomes = {
        outcome: value("requests_total", kind="generate", outcome=outcome) for outcome in ("ok", "ServerError", "left")
    }
    assert outcomes == {"ok": 1, "ServerError": 1, "left": 1}
    assert value("retries_total", kind="generate", reason="Unavailable") == 1
    assert value("request_seconds_count", kind="generate") == 3
    assert value("first_token_seconds_count") == 2
    tokens = {kind: value("tokens_total", kind=kind) for kind in ("prompt", "cached", "generated")}
    assert tokens == {"prompt": 20, "cached": 8, "generated": 3}
