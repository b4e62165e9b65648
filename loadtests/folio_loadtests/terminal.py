"""A run's summary as tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from folio_loadtests import figures
from folio_loadtests.verdict import Status

COLOURS = {Status.PASSED: "green", Status.MISSED: "yellow", Status.WRONG: "red", Status.INVALID: "magenta"}


def print_summary(document: dict[str, Any], console: Console) -> None:
    """Prints everything that the JSON says, as far as a terminal is wide."""
    run = document["run"]
    console.print(
        f"\nFolio load test: {run['shape']}, {run['num_users']} users, {run['duration_s']:.0f} s", style="bold"
    )
    console.print(f"warm-up (not counted): {figures.warm_up_line(document)}")
    for columns, rows in (
        (figures.KIND_COLUMNS, figures.kind_rows(document)),
        (figures.COHORT_COLUMNS, figures.cohort_rows(document)),
        (figures.LATENCY_COLUMNS, figures.latency_rows(document)),
        (figures.SERVER_COLUMNS, figures.server_rows(document)),
        (figures.OBJECTIVE_COLUMNS, figures.objective_rows(document)),
    ):
        if rows:
            console.print(_table(columns, rows))
    for reason, count in document["outcomes"]["reasons"].items():
        console.print(f"not ok: {reason}, {count} times")
    console.print(f"checked: {figures.checks_line(document)}")
    console.print(f"generator: {figures.generator_line(document)}")
    for note in document["notes"]:
        console.print(note)
    verdict = document["verdict"]
    status = Status(verdict["status"])
    console.print(Text(f"{status.name.lower()} (exit status {status.value})", style=f"bold {COLOURS[status]}"))
    for reason in verdict["reasons"]:
        console.print(f"  {reason}")


def _table(columns: Sequence[str], rows: Sequence[figures.Row]) -> Table:
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(table.columns):
        column.justify = "left" if index == 0 else "right"
    for row in rows:
        table.add_row(*row)
    return table
