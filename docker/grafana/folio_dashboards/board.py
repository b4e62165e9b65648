"""What a dashboard shows, as values.

Knows rows, panels and queries, and which of them to leave out where a server publishes no such metric. Does not know
how Grafana writes them down (`grafana`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

# A recorded series has colons in its name; what we scrape has none.
_SCRAPED_METRIC = re.compile(r"(?<![\w:$])(?:folio|kv_cache|nv)_\w+(?![\w:])")
_HISTOGRAM_SERIES = re.compile(r"_(?:bucket|sum|count)$")


class MissingMetricError(Exception):
    """A panel that must be there asks for a metric that is not published."""


@dataclass(frozen=True)
class Query:
    """One query of a panel.

    Args:
        expression: PromQL; `$instance`, `$model` and `$__rate_interval` are Grafana's to fill in.
        legend: name of its series, labels in `{{ }}`.
    """

    expression: str
    legend: str

    def metrics(self) -> frozenset[str]:
        """Names of the scraped metrics that it reads; a histogram's with the suffix of the series that is read."""
        return frozenset(_SCRAPED_METRIC.findall(self.expression))


@dataclass(frozen=True)
class Panel:
    """A panel.

    Args:
        title: short.
        description: what the reader learns from it.
        unit: Grafana's name of the unit, as `s`, `bytes`, `percentunit`, `reqps`.
        queries: at least one.
        kind: lines over time, or one number.
        width: columns out of 24.
        is_stacked: whether the areas add up.
    """

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Literal["lines", "number"] = "lines"
    width: int = 8
    is_stacked: bool = False


@dataclass(frozen=True)
class Row:
    """Panels under a title.

    Args:
        title: short.
        panels: from left to right.
        is_optional: whether it is left out where its metrics are not published.
    """

    title: str
    panels: tuple[Panel, ...]
    is_optional: bool = False


@dataclass(frozen=True)
class Board:
    """A dashboard.

    Args:
        uid: its identity in Grafana and the name of its file.
        title: as it is listed.
        description: a sentence.
        rows: from top to bottom.
    """

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]


def for_server(board: Board, published: AbstractSet[str]) -> Board:
    """The board as a server that publishes these metrics can fill it.

    Args:
        board: all that could be shown.
        published: names of metrics, a histogram's without suffix.

    Raises:
        MissingMetricError: a row that is not optional asks for another metric.
    """
    rows = tuple(row for row in board.rows if not (row.is_optional and _missing(row, published)))
    for row in rows:
        if missing := _missing(row, published):
            raise MissingMetricError(f"{board.uid}, row {row.title!r}: no metric {', '.join(sorted(missing))}")
    return replace(board, rows=rows)


def _missing(row: Row, published: AbstractSet[str]) -> set[str]:
    wanted = {name for panel in row.panels for query in panel.queries for name in query.metrics()}
    return {name for name in wanted if not published & {name, _HISTOGRAM_SERIES.sub("", name)}}
