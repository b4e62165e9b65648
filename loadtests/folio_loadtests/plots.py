"""The report's plots, each an SVG that takes the page's fonts."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from folio_loadtests.distribution import percentile
from folio_loadtests.sample import Cohort, Outcome, Phase, Sample

COLOURS = {
    Cohort.COLD: "#c2410c",
    Cohort.SHARED: "#a16207",
    Cohort.RESIDENT: "#0f766e",
    Cohort.EVICTED: "#7c3aed",
    Cohort.RESTORED: "#475569",
}
INK, PALE = "#334155", "#e2e8f0"
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "folio",
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Helvetica Neue", "Arial", "DejaVu Sans"],
    "font.size": 10,
    "axes.edgecolor": "#94a3b8",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
}
SHARES = (*(index / 200 for index in range(1, 200)), 0.999)


@dataclass(frozen=True)
class Plot:
    """A plot with what it says."""

    title: str
    caption: str
    svg: str


def draw(document: dict[str, Any], samples: Sequence[Sample]) -> list[Plot]:
    """All plots that there is something to draw for."""
    start_s = document["run"]["start_s"]
    measured = [sample for sample in samples if sample.phase is Phase.MEASUREMENT]
    if start_s is None or not measured:
        return []
    shown = [sample for sample in samples if sample.phase is not Phase.ENDING]
    return [
        Plot(
            "Time to first token over the run",
            "Every generation, by where its history came from. Before 0 lies the warm-up, which no figure counts.",
            _svg(lambda axes: _first_tokens(axes, shown, start_s)),
        ),
        Plot(
            "Time to first token by cohort",
            "Which share of a cohort's generations had their first token within a time.",
            _svg(lambda axes: _cohorts(axes, measured)),
        ),
        Plot(
            "From the intended start, and from sending",
            "Latency of whole requests at each percentile. Where the lines part, requests were sent late.",
            _svg(lambda axes: _both_latencies(axes, measured)),
        ),
        Plot(
            "Requests a second",
            "Ended in each second, by what they came to.",
            _svg(lambda axes: _rates(axes, shown, start_s)),
        ),
    ]


def _svg(paint: Callable[[Axes], None]) -> str:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.6), layout="constrained")
        paint(figure.add_subplot())
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]


def _seconds(axis: Axis) -> None:
    """Writes the times on a logarithmic axis in words."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} s" if value >= 1 else f"{value * 1000:g} ms"))
    axis.set_minor_formatter(NullFormatter())


def _first_tokens(axes: Axes, samples: Sequence[Sample], start_s: float) -> None:
    generations = sorted((s for s in samples if s.first_token_s is not None), key=lambda s: s.intended_s)
    for cohort, colour in COLOURS.items():
        chosen = [sample for sample in generations if sample.cohort is cohort]
        if chosen:
            times, values = zip(*((s.intended_s - start_s, s.intended_first_token_s) for s in chosen), strict=True)
            axes.scatter(times, values, s=14, color=colour, alpha=0.75, linewidths=0, label=cohort.value)
    first = generations[0]
    left = min(first.intended_s - start_s, 0.0)
    axes.axvspan(left, 0, color=PALE, alpha=0.6, linewidth=0, zorder=0)
    axes.text(left, 1.02, "warm-up", transform=axes.get_xaxis_transform(), fontsize=9)
    axes.annotate(
        "cold start",
        (first.intended_s - start_s, first.intended_first_token_s or 0.0),
        xytext=(10, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
    )
    axes.set_yscale("log")
    _seconds(axes.yaxis)
    axes.set_xlabel("seconds since the measurement began")
    axes.set_ylabel("first token")
    axes.legend(ncols=4, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0, handletextpad=0.2)


def _cohorts(axes: Axes, measured: Sequence[Sample]) -> None:
    for cohort, colour in COLOURS.items():
        values = sorted(
            sample.intended_first_token_s
            for sample in measured
            if sample.cohort is cohort and sample.outcome is Outcome.OK and sample.intended_first_token_s is not None
        )
        if values:
            shares = [(index + 1) / len(values) * 100 for index in range(len(values))]
            axes.step(
                values, shares, where="post", color=colour, linewidth=1.8, label=f"{cohort.value} ({len(values)})"
            )
    axes.set_xscale("log")
    _seconds(axes.xaxis)
    axes.set_xlabel("first token")
    axes.set_ylabel("% of generations")
    axes.legend(loc="lower right")


def _both_latencies(axes: Axes, measured: Sequence[Sample]) -> None:
    answered = [sample for sample in measured if sample.outcome is Outcome.OK]
    lines = {
        "from the intended start": ([sample.latency_s for sample in answered], "#be123c", "-"),
        "from sending": ([sample.total_s for sample in answered], "#0369a1", "--"),
    }
    for label, (values, colour, style) in lines.items():
        ordered = sorted(values)
        axes.plot(
            [share * 100 for share in SHARES],
            [percentile(ordered, share) for share in SHARES],
            style,
            color=colour,
            linewidth=1.8,
            label=label,
        )
    axes.set_yscale("log")
    _seconds(axes.yaxis)
    axes.set_xlabel("percentile")
    axes.set_ylabel("whole request")
    axes.legend(loc="upper left")


def _rates(axes: Axes, samples: Sequence[Sample], start_s: float) -> None:
    ends = {
        outcome: [s.intended_s + s.latency_s - start_s for s in samples if s.outcome is outcome] for outcome in Outcome
    }
    colours = {Outcome.OK: "#0f766e", Outcome.REFUSED: "#a16207", Outcome.FAILED: "#c2410c", Outcome.WRONG: "#be123c"}
    present = [outcome for outcome, moments in ends.items() if moments]
    moments = [moment for outcome in present for moment in ends[outcome]]
    bins = range(int(min(moments)) - 1, int(max(moments)) + 2)
    axes.hist(
        [ends[outcome] for outcome in present],
        bins=list(bins),
        stacked=True,
        color=[colours[outcome] for outcome in present],
        label=[outcome.value for outcome in present],
    )
    axes.axvspan(min(bins), 0, color=PALE, alpha=0.6, linewidth=0, zorder=0)
    axes.set_xlabel("seconds since the measurement began")
    axes.set_ylabel("requests")
    axes.legend(ncols=4, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
