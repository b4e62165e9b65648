"""Queries that dashboards repeat.

Knows PromQL and the dashboards' variables; nothing of what a metric means. Where nothing happened in the window, a
share, a mean or a quantile has no value, rather than NaN.
"""

from __future__ import annotations

from folio_dashboards.board import Query

_LEVELS = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
_CHOSEN = 'instance=~"$instance", model=~"$model"'


def series(metric: str, *matchers: str) -> str:
    """The chosen servers' and models' series of a metric."""
    return f"{metric}{{{', '.join((_CHOSEN, *matchers))}}}"


def recorded(rule: str) -> str:
    """The chosen models' series of a recording rule, which is over all servers."""
    return f'{rule}{{model=~"$model"}}'


def total(metric: str, *by: str, where: tuple[str, ...] = ()) -> str:
    """A gauge, summed by model and further labels."""
    return f"sum by ({', '.join(('model', *by))}) ({series(metric, *where)})"


def rate(metric: str, *by: str, where: tuple[str, ...] = ()) -> str:
    """A counter's increase per second, summed by model and further labels."""
    return f"sum by ({', '.join(('model', *by))}) (rate({series(metric, *where)}[$__rate_interval]))"


def share(part: str, whole: str) -> str:
    """A part of a whole that may be 0."""
    return f"{part} / ({whole} > 0)"


def mean(histogram: str) -> str:
    """The mean of a histogram's observations, by model."""
    return share(rate(f"{histogram}_sum"), rate(f"{histogram}_count"))


def quantile(level: float, histogram: str) -> str:
    """A quantile of a histogram's observations, by model; the comparison drops the NaN of no observations."""
    return f"histogram_quantile({level}, {rate(f'{histogram}_bucket', 'le')}) >= 0"


def quantiles(histogram: str) -> tuple[Query, ...]:
    """Three quantiles as queries of one panel."""
    return tuple(Query(quantile(level, histogram), f"{{{{model}}}} {name}") for level, name in _LEVELS)
