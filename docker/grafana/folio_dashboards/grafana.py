"""Writes a board as Grafana's JSON, by Grafana's own SDK.

Knows Grafana's vocabulary and layout; nothing of what is shown.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard

if TYPE_CHECKING:
    from folio_dashboards.board import Board, Panel

TAG = "folio"
_COLUMNS = 24
_HEIGHTS = {"lines": 8, "number": 5}
_DATA_SOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
# Every server that has a model of ours publishes it, whatever the model's task.
_LABELLED = 'folio_requests_running{job="folio"}'


def to_json(board: Board) -> str:
    """The board as Grafana imports and provisions it; the same board gives the same text."""
    document = JSONEncoder(sort_keys=True, indent=2).encode(_dashboard(board).build())
    return json.dumps(json.loads(document), sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def _dashboard(board: Board) -> builders.Dashboard:
    built = (
        builders.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags([TAG])
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .link(builders.DashboardLink("Folio").type(dashboard.DashboardLinkType.DASHBOARDS).tags([TAG]).keep_time(True))
        .with_variable(builders.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_label_variable("instance", "Server"))
        .with_variable(_label_variable("model", "Model"))
    )
    identity, top = 1, 0
    for row in board.rows:
        heading = builders.Row(row.title).id(identity).grid_pos(dashboard.GridPos(x=0, y=top, w=_COLUMNS, h=1))
        built.with_row(heading)
        identity, top, left = identity + 1, top + 1, 0
        for index, panel in enumerate(row.panels):
            height = _HEIGHTS[panel.kind]
            place = dashboard.GridPos(x=left, y=top, w=panel.width, h=height)
            built.with_panel(_panel(panel).id(identity).grid_pos(place))
            identity, left = identity + 1, left + panel.width
            if left >= _COLUMNS or index == len(row.panels) - 1:
                left, top = 0, top + height
    return built


def _label_variable(label: str, title: str) -> builders.QueryVariable:
    every = dashboard.VariableOption(selected=True, text="All", value="$__all")
    return (
        builders.QueryVariable(label)
        .label(title)
        .datasource(_DATA_SOURCE)
        .query(f"label_values({_LABELLED}, {label})")
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(every)
    )


def _panel(panel: Panel) -> stat.Panel | timeseries.Panel:
    built = _number() if panel.kind == "number" else _lines(is_stacked=panel.is_stacked)
    built.title(panel.title).description(panel.description).unit(panel.unit).datasource(_DATA_SOURCE)
    for index, query in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query.expression).legend_format(query.legend)
        built.with_target(target.ref_id(chr(ord("A") + index)).datasource(_DATA_SOURCE))
    return built


def _number() -> stat.Panel:
    return (
        stat.Panel()
        .graph_mode(common.BigValueGraphMode.NONE)
        .text_mode(common.BigValueTextMode.VALUE_AND_NAME)
        .no_value("no traffic")
    )


def _lines(*, is_stacked: bool) -> timeseries.Panel:
    legend = (
        common_builders.VizLegendOptions()
        .show_legend(True)
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
        .calcs([])
    )
    built = timeseries.Panel().legend(legend).min(0).line_width(1)
    if is_stacked:
        stacking = common_builders.StackingConfig().mode(common.StackingMode.NORMAL)
        built.stacking(stacking).fill_opacity(30)
    return built
