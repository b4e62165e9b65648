"""The results of a run: JSON and one HTML page in a folder, a table in the terminal, and the exit status."""

from __future__ import annotations

import json
import sys

from rich.console import Console

from folio_loadtests.arguments import RunOptions
from folio_loadtests.course import Course
from folio_loadtests.page import render_page
from folio_loadtests.summary import summarise
from folio_loadtests.terminal import print_summary

WIDTH = 140
"""Of the tables where no terminal says how wide it is: wide enough for all columns."""


def publish(course: Course, asked: RunOptions) -> int:
    """Writes and shows the results; returns the exit status."""
    document = summarise(course, asked.objectives)
    folder = asked.report
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    page = folder / "report.html"
    page.write_text(render_page(document, course.recording.samples))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    print_summary(document, console)
    console.print(f"\n{page}", soft_wrap=True)
    return int(document["verdict"]["status"])
