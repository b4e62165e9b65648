"""`python -m folio_dashboards`: writes the dashboards as JSON.

Without arguments they are those of a server without a GPU, into `dashboards/` next to this package, where they are
committed. With a server's metrics page they show all that this server publishes, as its GPU.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from folio_dashboards import published
from folio_dashboards.board import for_server
from folio_dashboards.cache import CACHE
from folio_dashboards.grafana import to_json
from folio_dashboards.host import HOST
from folio_dashboards.latency import LATENCY
from folio_dashboards.overview import OVERVIEW

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

BOARDS = (OVERVIEW, CACHE, LATENCY, HOST)
COMMITTED = Path(__file__).parents[1] / "dashboards"


def documents(metrics: AbstractSet[str]) -> Mapping[str, str]:
    """File name to content, for servers that publish these metrics."""
    return {f"{board.uid}.json": to_json(for_server(board, metrics)) for board in BOARDS}


def main(arguments: Sequence[str]) -> None:
    """Writes the files."""
    parser = argparse.ArgumentParser(prog="folio_dashboards", description="Writes Folio's Grafana dashboards.")
    parser.add_argument("--metrics-page", type=Path, help="a saved metrics page, to show all that is on it")
    parser.add_argument("--to", type=Path, default=COMMITTED, help="folder to write to")
    given = parser.parse_args(arguments)
    metrics = (
        published.everywhere() if given.metrics_page is None else published.on_page(given.metrics_page.read_text())
    )
    given.to.mkdir(parents=True, exist_ok=True)
    for name, content in documents(metrics).items():
        (given.to / name).write_text(content)


if __name__ == "__main__":
    main(sys.argv[1:])
