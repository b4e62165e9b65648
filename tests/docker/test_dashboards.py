"""Dashboards: what is committed is what the code yields, for the metrics that there are."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from folio_dashboards import published
from folio_dashboards.board import Board, MissingMetricError, Panel, Query, Row, for_server
from tests.docker.monitoring_files import DASHBOARDS, dashboard_queries, rules
from tests.server.metrics_page import MetricsPage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.server.running_server import RunningServer

GPU_METRICS = frozenset(
    {
        "nv_gpu_utilization",
        "nv_gpu_memory_used_bytes",
        "nv_gpu_memory_total_bytes",
        "nv_gpu_power_usage",
        "nv_gpu_power_limit",
    }
)
COLUMNS = 24


def generated(metrics: frozenset[str]) -> Mapping[str, str]:
    """The dashboards of servers with these metrics; skips where Grafana's SDK does not run."""
    pytest.importorskip("grafana_foundation_sdk", reason="Grafana's SDK needs Python 3.11")
    from folio_dashboards.__main__ import documents  # noqa: PLC0415 - imports the SDK

    return documents(metrics)


def rows(document: str) -> list[str]:
    return [panel["title"] for panel in json.loads(document)["panels"] if panel["type"] == "row"]


def test_what_is_committed_is_what_the_code_yields() -> None:
    committed = {path.name: path.read_text() for path in DASHBOARDS}
    assert committed == generated(published.everywhere()), "run `python -m folio_dashboards` in docker/grafana"


def test_a_row_comes_with_its_metrics() -> None:
    without, with_gpu = generated(published.everywhere()), generated(published.everywhere() | GPU_METRICS)
    assert "GPU" not in rows(without["folio-host.json"])
    assert "GPU" in rows(with_gpu["folio-host.json"])


def test_metrics_are_read_from_a_server_s_page() -> None:
    page = "# HELP nv_gpu_utilization In use.\n# TYPE nv_gpu_utilization gauge\nnv_gpu_utilization 0.5\n"
    assert published.on_page(page + "# TYPE folio_evictions_total counter\n") == {
        "nv_gpu_utilization",
        "folio_evictions_total",
    }


def test_every_server_publishes_what_the_committed_dashboards_show(server: RunningServer) -> None:
    assert published.everywhere() <= published.on_page(MetricsPage(server.metrics_address).text())


def test_dashboards_are_written_for_a_server_s_page(tmp_path: Path) -> None:
    generated(published.everywhere())
    from folio_dashboards.__main__ import main  # noqa: PLC0415 - imports the SDK

    page = tmp_path / "page.txt"
    page.write_text("".join(f"# TYPE {name} gauge\n" for name in published.everywhere() | GPU_METRICS))
    main(["--metrics-page", str(page), "--to", str(tmp_path / "dashboards")])
    written = {path.name: path.read_text() for path in (tmp_path / "dashboards").iterdir()}
    assert written == generated(published.everywhere() | GPU_METRICS)


def board(row: Row) -> Board:
    return Board("a-board", "A board", "For a test.", (row,))


def test_a_panel_without_its_metric_is_an_error() -> None:
    query = Query('rate(folio_no_such_total{model=~"$model"}[1m])', "{{model}}")
    panel = Panel("A panel", "For a test.", "short", (query,))
    with pytest.raises(MissingMetricError, match="folio_no_such_total"):
        for_server(board(Row("A row", (panel,))), published.everywhere())
    assert for_server(board(Row("A row", (panel,), is_optional=True)), published.everywhere()).rows == ()


def test_queries_read_recorded_series_that_there_are() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    read = {name for query in dashboard_queries() for name in query.recorded_series()}
    assert read
    assert read <= recorded


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_are_told_apart_and_do_not_overlap(path: Path) -> None:
    document: dict[str, Any] = json.loads(path.read_text())
    assert document["uid"] == path.stem
    panels = document["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] + place["w"] <= COLUMNS for place in places)
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(set(cells)) == len(cells)
    assert all(above["y"] <= below["y"] for above, below in pairwise(places))


def test_every_panel_says_what_it_shows() -> None:
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            if panel["type"] != "row":
                assert panel["description"].endswith("."), panel["title"]
                assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
                assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]
