"""Says what was measured: a table for people, JSON for programs, both dated, in one folder."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import re
from collections.abc import Iterator
from pathlib import Path

from .results import Results, goals

RESULTS_FOLDER = Path(__file__).parents[1] / "results"

EXPLANATION = (
    "One layer, a CUDA graph, cold L2, medians. Share: the codec's own bytes over time, of copy bandwidth. "
    "Ratio: times as fast as the fastest bf16 kernel, or as an ideal one at 85 % of copy bandwidth where that is "
    "faster; the last column says which."
)


def write(results: Results, goal_shape: str, goal_workload: str, day: dt.date, folder: Path) -> tuple[Path, Path]:
    """Writes `<day>-<device>.json` and `.md`; a later run of the same day on the same device replaces them."""
    folder.mkdir(parents=True, exist_ok=True)
    device = re.sub(r"[^a-z0-9]+", "-", results.device.lower()).strip("-")
    json_path, table_path = (folder / f"{day.isoformat()}-{device}{suffix}" for suffix in (".json", ".md"))
    json_path.write_text(json.dumps(as_json(results, goal_shape, goal_workload, day), indent=1) + "\n")
    table_path.write_text(as_table(results, goal_shape, goal_workload, day) + "\n")
    return json_path, table_path


def as_json(results: Results, goal_shape: str, goal_workload: str, day: dt.date) -> dict[str, object]:
    """Every measurement, and what was derived from it."""
    decodes = []
    for decode in results.decodes:
        compared = results.ratio(decode)
        derived = {
            "share_of_copy": results.share_of_copy(decode),
            "ratio": compared[0] if compared else None,
            "ratio_against": compared[1] if compared else None,
        }
        decodes.append(dataclasses.asdict(decode) | derived)
    found = goals(results, goal_shape, goal_workload)
    return {
        "date": day.isoformat(),
        "device": results.device,
        "versions": results.versions,
        "copy_bytes_per_s": results.copy_bytes_per_s,
        "decodes": decodes,
        "baselines": [dataclasses.asdict(each) for each in results.baselines],
        "sealings": [
            dataclasses.asdict(each) | {"share_of_copy": results.share_of_copy(each)} for each in results.sealings
        ],
        "prefills": [
            dataclasses.asdict(each) | {"time_over_none": results.prefill_ratio(each)} for each in results.prefills
        ],
        "goals": [dataclasses.asdict(goal) | {"verdict": goal.verdict} for goal in found],
    }


def as_table(results: Results, goal_shape: str, goal_workload: str, day: dt.date) -> str:
    """Markdown: goals first, then every case."""
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    lines = [
        f"# {results.device}, {day.isoformat()}",
        "",
        f"{versions}. Copy bandwidth {results.copy_bytes_per_s / 1e9:.0f} GB/s, read and written. {EXPLANATION}",
        "",
        f"Goals at {goal_shape}, {goal_workload}:",
        "",
        *_rows(("goal", "bound", "measured", ""), _goal_rows(results, goal_shape, goal_workload)),
        "",
        *_rows(("heads", "workload", "codec", "us", "share", "ratio", "against"), _decode_rows(results)),
        "",
        *_rows(("heads", "workload", "bf16 kernel", "us or why not"), _baseline_rows(results)),
        "",
        *_rows(("heads", "sealing", "us", "share", "of a decode step"), _sealing_rows(results)),
        "",
        *_rows(("heads", "chunk", "codec", "us", "over none"), _prefill_rows(results)),
    ]
    return "\n".join(lines)


def _rows(header: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ("---",) * len(header), *rows)]


def _goal_rows(results: Results, shape: str, workload: str) -> Iterator[tuple[str, ...]]:
    for goal in goals(results, shape, workload):
        sign = "<=" if goal.is_upper else ">="
        measured = "" if goal.measured is None else f"{goal.measured:.3f}"
        yield goal.text, f"{sign} {goal.bound:g}", measured, goal.verdict


def _decode_rows(results: Results) -> Iterator[tuple[str, ...]]:
    for decode in results.decodes:
        compared = results.ratio(decode)
        ratio, against = (f"{compared[0]:.2f}", compared[1]) if compared else ("", "no baseline")
        share = f"{results.share_of_copy(decode):.1%}"
        yield decode.shape, decode.workload, decode.codec, _us(decode.seconds), share, ratio, against


def _baseline_rows(results: Results) -> Iterator[tuple[str, ...]]:
    for each in results.baselines:
        yield each.shape, each.workload, each.name, each.reason if each.seconds is None else _us(each.seconds)


def _sealing_rows(results: Results) -> Iterator[tuple[str, ...]]:
    for each in results.sealings:
        share = f"{results.share_of_copy(each):.1%}"
        yield each.shape, each.codec, _us(each.seconds), share, f"{each.share_of_step:.2%} at {each.workload}"


def _prefill_rows(results: Results) -> Iterator[tuple[str, ...]]:
    for each in results.prefills:
        ratio = results.prefill_ratio(each)
        chunk = f"{each.num_new} after {each.num_before}"
        yield each.shape, chunk, each.codec, _us(each.seconds), "" if ratio is None else f"{ratio:.2f}"


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.1f}"
