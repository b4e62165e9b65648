"""Latency over throughput as PNG and SVG: one picture for each kind of load, all codecs in it, knees marked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from folio_sweep.knee import RULE
from folio_sweep.measurement import Measurement
from folio_sweep.results import curves, knee_of
from folio_sweep.series import Level, LoadMode, Point, Series, Task, Workload

FORMATS = ("png", "svg")
LEGEND = f"ring: the knee, {RULE}\ndashed ring: the highest level measured, so the knee is there or beyond"
MARKERS = "os^Dv"
TOKENS, STEPS = "throughput, tokens/s", "throughput, steps/s"
Levels = Sequence[tuple[Level, Measurement]]
# Told apart by people who do not see colours as most do (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        title: what its curves have in common.
        throughput_name: what stands on the horizontal axis.
        latency_name: what stands on the vertical axis.
        latency_ms: a level's value there; None leaves the level out.
        curves: label and levels of each.
    """

    title: str
    throughput_name: str
    latency_name: str
    latency_ms: Callable[[Measurement], float | None]
    curves: tuple[tuple[str, Levels], ...]


def write_plots(folder: Path, points: Sequence[Point]) -> list[Path]:
    """Draws every kind of load that was measured; returns the files."""
    kinds: dict[tuple[Task, Workload, LoadMode], dict[Series, Levels]] = {}
    for series, levels in curves(points).items():
        kinds.setdefault((series.task, series.workload, series.mode), {})[series] = levels
    files = []
    for (task, workload, mode), found in kinds.items():
        load = "requests at a time" if mode == "concurrency" else "requests a second"
        title = f"{task}, {workload} sessions, points labelled with {load}"
        figure = draw(title, _generate_panels(found) if task == "generate" else _attention_panels(found))
        for form in FORMATS:
            files.append(folder / f"{task}_{workload}_{mode}.{form}")
            figure.savefig(files[-1], dpi=150)
    return files


def draw(title: str, panels: Sequence[Panel]) -> Figure:
    """A picture of panels side by side; those that show the same latency share its scale."""
    figure = Figure(figsize=(max(7.5, 5.8 * len(panels)), 4.8), layout="constrained")
    share = len({panel.latency_name for panel in panels}) == 1
    axes = figure.subplots(1, len(panels), sharey=share, sharex=True, squeeze=False)[0]
    for panel, axis in zip(panels, axes, strict=True):
        _draw_panel(panel, axis)
    for axis in axes:  # once everything is drawn: a limit holds from then on
        axis.set_ylim(bottom=0)
        axis.set_xlim(left=0)
    figure.suptitle(title)
    figure.supxlabel(LEGEND, size=8)
    return figure


def _generate_panels(found: dict[Series, Levels]) -> list[Panel]:
    models = len({series.model for series in found})
    lines = tuple(
        (series.codec if models == 1 else f"{series.model} {series.codec}", levels) for series, levels in found.items()
    )
    return [
        Panel("time to first token", TOKENS, "p95 time to first token, ms", lambda m: m.first_token.p95_ms, lines),
        Panel("inter-token latency", TOKENS, "p95 inter-token latency, ms", _inter_token_ms, lines),
    ]


def _inter_token_ms(measured: Measurement) -> float | None:
    return None if measured.inter_token is None else measured.inter_token.p95_ms


def _attention_panels(found: dict[Series, Levels]) -> list[Panel]:
    """A panel for each codec, a curve for each batch delay."""
    codecs: dict[str, list[tuple[str, Levels]]] = {}
    for series, levels in sorted(found.items(), key=lambda item: item[0].batch_delay_us or 0):
        codecs.setdefault(series.codec, []).append((f"batch delay {series.batch_delay_us} µs", levels))
    return [
        Panel(codec, STEPS, "p95 latency of a step, ms", lambda m: m.latency.p95_ms, tuple(lines))
        for codec, lines in sorted(codecs.items())
    ]


def _draw_panel(panel: Panel, axis: Axes) -> None:
    for number, (label, levels) in enumerate(panel.curves):
        shown = [(level, measured, panel.latency_ms(measured)) for level, measured in levels]
        xs = [measured.answers_per_s for _, measured, latency in shown if latency is not None]
        ys = [latency for _, _, latency in shown if latency is not None]
        colour = COLOURS[number % len(COLOURS)]
        axis.plot(xs, ys, marker=MARKERS[number % len(MARKERS)], color=colour, label=label, alpha=0.85)
        for level, measured, latency in shown:
            if latency is not None:
                place = (measured.answers_per_s, latency)
                axis.annotate(f"{level.value:g}", place, (5, 5), textcoords="offset points", size=8, color=colour)
        _mark_knee(panel, levels, axis, colour)
    axis.set(title=panel.title, xlabel=panel.throughput_name, ylabel=panel.latency_name)
    axis.margins(0.12)
    axis.grid(alpha=0.3)
    axis.legend()


def _mark_knee(panel: Panel, levels: Levels, axis: Axes, colour: str) -> None:
    knee = knee_of(levels)
    if knee is None:
        return
    _, measured = levels[knee.index]
    latency = panel.latency_ms(measured)
    if latency is not None:
        style = "-" if knee.is_reached else "--"
        place = ([measured.answers_per_s], [latency])
        axis.scatter(*place, s=220, facecolors="none", edgecolors=colour, linewidths=2, linestyles=style)
