"""The report as one HTML page that needs nothing else: styles and plots are in it, and it opens without a network.

Jinja2 fills the page in, which Locust brings along. matplotlib draws the plots as SVG, a few kilobytes each, where a
plotting library of JavaScript would add megabytes to every report.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from folio_loadtests import figures, plots
from folio_loadtests.sample import Sample
from folio_loadtests.verdict import Status

TITLES = {
    Status.PASSED: "Passed: every objective was met",
    Status.MISSED: "Missed an objective",
    Status.WRONG: "Wrong output",
    Status.INVALID: "Invalid: the generator could not keep up",
}


def render_page(document: dict[str, Any], samples: Sequence[Sample]) -> str:
    """The page for a summary and the requests behind it."""
    environment = Environment(
        loader=PackageLoader("folio_loadtests", "templates"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    run = document["run"]
    return environment.get_template("report.html.jinja").render(
        document=document,
        run=run,
        figures=figures,
        title=TITLES[Status(document["verdict"]["status"])],
        started=time.strftime("%d %B %Y, %H:%M:%S UTC", time.gmtime(run["start_s"])) if run["start_s"] else "never",
        plots=plots.draw(document, samples),
    )
