"""A sweep's results as files and as a table: every level, and codecs side by side at their knees."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from folio_sweep.knee import RULE, Knee, find_knee
from folio_sweep.measurement import Measurement, Percentiles
from folio_sweep.series import Level, Point, Series

Value = str | float | int | bool | None
DISTRIBUTIONS = ("first_token", "inter_token", "latency", "send_lag")
# A step of an attention model is answered whole.
NOT_OF_ATTENTION = frozenset({"first_token", "inter_token"})
PERCENTILES = ("p50_ms", "p95_ms", "p99_ms")
# More than this late at the 99th percentile, and the figures are the generator's as much as the server's.
MAX_SEND_LAG_MS = 10.0


def curves(points: Iterable[Point]) -> dict[Series, list[tuple[Level, Measurement]]]:
    """The levels that have a measurement, by series, in the order of load."""
    found: dict[Series, list[tuple[Level, Measurement]]] = {}
    for point in points:
        if point.measurement is not None:
            found.setdefault(point.series, []).append((point.level, point.measurement))
    return {series: sorted(levels, key=lambda pair: pair[0].value) for series, levels in found.items()}


def knee_of(levels: Sequence[tuple[Level, Measurement]]) -> Knee | None:
    """A curve's knee by `knee.RULE`."""
    return find_knee([measured.answers_per_s for _, measured in levels], [m.latency.p50_ms for _, m in levels])


def write_results(folder: Path, points: Sequence[Point], about: Mapping[str, Any]) -> None:
    """Writes `results.json` and `results.csv`: a row for each level, the knees marked.

    Args:
        folder: where to.
        points: what was measured.
        about: how; goes into the JSON as it is.
    """
    rows = [_row(point, knees=_knees(points)) for point in points]
    document = {**about, "knee_rule": RULE, "levels": rows, "comparison": comparison(points)}
    (folder / "results.json").write_text(json.dumps(document, indent=2) + "\n")
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)


def comparison(points: Sequence[Point]) -> list[dict[str, Value]]:
    """A row for each series: its knee, the figures there, and its highest throughput; codecs stand side by side."""
    rows = [_compared(series, levels) for series, levels in curves(points).items()]
    return sorted(rows, key=lambda row: [str(row[name]) for name in ("task", "workload", "mode", "model", "codec")])


def comparison_table(points: Sequence[Point]) -> Table:
    """The comparison for a terminal."""
    table = Table(title="Codecs side by side, at the knee of each curve", caption=f"Knee: {RULE}.")
    for name in ("model", "sessions", "load", "codec", "knee at"):
        table.add_column(name)
    for name in ("throughput", "TTFT p95 ms", "ITL p95 ms", "latency p95 ms", "highest throughput"):
        table.add_column(name, justify="right")
    figures = ("first_token_p95_ms", "inter_token_p95_ms", "latency_p95_ms")
    for row in comparison(points):
        words = [str(row[name]) for name in ("model", "workload", "mode", "codec")]
        cells = [_figure(row["throughput"], row["throughput_unit"]), *(_figure(row[name]) for name in figures)]
        table.add_row(*words, _knee_cell(row), *cells, _figure(row["highest_throughput"], row["throughput_unit"]))
    return table


def summary(point: Point) -> str:
    """A level in one line."""
    level, measured = point.level, point.measurement
    unit = "at a time" if level.mode == "concurrency" else "requests/s"
    head = f"{point.series.codec} {point.series.model} {point.series.workload} {level.value:g} {unit}"
    if measured is None:
        return f"{head}: FAILED: {point.failure}"
    figures = [f"{measured.answers_per_s:.1f} {throughput_unit(point.series)}"]
    if point.series.task == "attention":
        figures.append(f"latency p95 {measured.latency.p95_ms:.1f} ms")
    else:
        figures.append(f"TTFT p95 {measured.first_token.p95_ms:.1f} ms")
    if measured.inter_token is not None:
        figures.append(f"ITL p95 {measured.inter_token.p95_ms:.1f} ms")
    if measured.send_lag is not None and measured.send_lag.p99_ms > MAX_SEND_LAG_MS:
        figures.append(f"sent up to {measured.send_lag.p99_ms:.0f} ms late (counted in the latencies)")
    return f"{head}: {', '.join(figures)}"


def throughput_unit(series: Series) -> str:
    """What a series' throughput counts."""
    return "tokens/s" if series.task == "generate" else "steps/s"


def _knees(points: Sequence[Point]) -> set[tuple[Series, Level]]:
    return {
        (series, levels[knee.index][0])
        for series, levels in curves(points).items()
        if (knee := knee_of(levels)) is not None
    }


def _compared(series: Series, levels: Sequence[tuple[Level, Measurement]]) -> dict[str, Value]:
    knee = knee_of(levels)
    level, measured = levels[knee.index] if knee else (None, None)
    return {
        **asdict(series),
        "knee_level": level.value if level else None,
        "knee_is_reached": knee.is_reached if knee else None,
        **_figures(series, measured),
        "highest_throughput": _rounded(max(measured.answers_per_s for _, measured in levels)),
    }


def _row(point: Point, knees: set[tuple[Series, Level]]) -> dict[str, Value]:
    return {
        **asdict(point.series),
        "level": point.level.value,
        "num_requests": point.level.num_requests,
        **_figures(point.series, point.measurement),
        "is_knee": (point.series, point.level) in knees,
        "failure": point.failure,
    }


def _figures(series: Series, measured: Measurement | None) -> dict[str, Value]:
    """The figures of a level under the names that files use; None for each where there is no measurement."""
    figures: dict[str, Value] = {
        "throughput": _rounded(measured.answers_per_s) if measured else None,
        "throughput_unit": throughput_unit(series),
    }
    for name in ("requests_per_s", "duration_s", "mean_prompt_tokens", "mean_cached_tokens"):
        figures[name] = _rounded(getattr(measured, name, None))
    for name in DISTRIBUTIONS:
        is_shown = series.task == "generate" or name not in NOT_OF_ATTENTION
        distribution: Percentiles | None = getattr(measured, name, None) if is_shown else None
        figures |= {f"{name}_{share}": _rounded(getattr(distribution, share, None)) for share in PERCENTILES}
    return figures


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _knee_cell(row: Mapping[str, Value]) -> str:
    if row["knee_level"] is None:
        return "too few levels"
    return f"{row['knee_level']:g}" + ("" if row["knee_is_reached"] else " or beyond")


def _figure(value: Value, unit: Value = "") -> str:
    return "" if value is None else f"{value:,.1f} {unit}".strip()
