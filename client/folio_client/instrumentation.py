"""A client's requests as Prometheus metrics, `folio_client_*`: an `Observer` that prometheus-client reads.

Imported only by those who want it: `Client(url, observer=ClientMetrics())`. Labels name models and kinds of outcome,
never a session or a request. Knows prometheus-client; does not know how requests are made.
"""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from folio_client.errors import FolioError
from folio_client.observer import Kind, RequestEnd

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class ClientMetrics:
    """Counts requests and measures them; one serves any number of clients and threads.

    >>> from folio_client import Client
    >>> registry = CollectorRegistry()
    >>> with Client("grpc://localhost:8001", observer=ClientMetrics(registry)) as client:
    ...     answer = client.generate("Hello", max_tokens=3, ignore_eos=True)
    >>> registry.get_sample_value("folio_client_tokens_total", {"model": "smollm2", "kind": "generated"})
    3.0

    `folio_client_requests_total{kind,model,outcome}`: `outcome` is `ok`, `left` where the caller left early, or the
    name of the exception. `folio_client_request_seconds{kind,model}` and `folio_client_first_token_seconds{model}` are
    histograms from the caller's side, `folio_client_retries_total{kind,model,reason}` counts repetitions, and
    `folio_client_tokens_total{model,kind}` tokens: `prompt`, `cached` and `generated`.

    Args:
        registry: where the metrics are found.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._requests = Counter(
            "folio_client_requests", "Requests by outcome.", ("kind", "model", "outcome"), registry=registry
        )
        self._retries = Counter(
            "folio_client_retries", "Repeated requests by reason.", ("kind", "model", "reason"), registry=registry
        )
        self._tokens = Counter("folio_client_tokens", "Tokens by kind.", ("model", "kind"), registry=registry)
        self._request_s = Histogram(
            "folio_client_request_seconds",
            "Whole requests, repetitions included.",
            ("kind", "model"),
            registry=registry,
            buckets=_SECONDS,
        )
        self._first_token_s = Histogram(
            "folio_client_first_token_seconds",
            "From sending a generation to its first text.",
            ("model",),
            registry=registry,
            buckets=_SECONDS,
        )

    def on_end(self, end: RequestEnd) -> None:
        """See `Observer`."""
        outcome = type(end.error).__name__ if end.error else "left" if end.is_left else "ok"
        self._requests.labels(end.kind, end.model, outcome).inc()
        self._request_s.labels(end.kind, end.model).observe(end.duration_s)
        if end.usage is None:
            return
        if end.usage.first_token_s is not None:
            self._first_token_s.labels(end.model).observe(end.usage.first_token_s)
        counts = {
            "prompt": end.usage.num_prompt_tokens,
            "cached": end.usage.num_cached_tokens,
            "generated": end.usage.num_generated_tokens,
        }
        for kind, count in counts.items():
            self._tokens.labels(end.model, kind).inc(count or 0)

    def on_retry(self, kind: Kind, model: str, error: FolioError) -> None:
        """See `Observer`."""
        self._retries.labels(kind, model, type(error).__name__).inc()
