"""`make bench-gpu`: measures the kernels on this machine's GPU and writes the results.

Run the correctness tests on the GPU first (`make test-gpu`): a wrong kernel may be fast.
"""

from __future__ import annotations

import argparse
import datetime as dt
import gc
import itertools
import sys
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
import triton

from folio_kernels.codecs import CODECS

from .cases import GOAL_SHAPE, GOAL_WORKLOAD, SHAPES, WORKLOADS, HeadShape, Workload
from .measure import measure_baselines, measure_decode, measure_prefill, measure_sealing
from .report import RESULTS_FOLDER, as_table, write
from .results import Baseline, Decode, Prefill, Results, Sealing
from .timing import GraphTimer

NO_GPU = 3
"""Exit status where there is nothing to measure on."""

CHUNKS = ((0, 2048), (30 * 1024, 2048))
"""Prefills: tokens before a chunk, and its own."""

Measured = TypeVar("Measured")


def main() -> int:
    """Runs what the command line asks for; returns the exit status."""
    options = _parse()
    if not torch.cuda.is_available():
        print(
            "There is no CUDA GPU here: nothing was measured, and the results folder stays as it is.", file=sys.stderr
        )
        return NO_GPU
    with torch.inference_mode():
        results = measure_all(options)
    today = dt.datetime.now(dt.timezone.utc).date()
    paths = write(results, GOAL_SHAPE.name, GOAL_WORKLOAD.name, today, options.folder)
    print(as_table(results, GOAL_SHAPE.name, GOAL_WORKLOAD.name, today))
    print("written:", *paths)
    return 0


def measure_all(options: argparse.Namespace) -> Results:
    """Every chosen case; progress goes to stderr."""
    timer = GraphTimer(options.runs)
    copy_bytes_per_s = timer.copy_bytes_per_s()
    decodes: list[Decode] = []
    baselines: list[Baseline] = []
    for shape, workload in itertools.product(_chosen(SHAPES, options.shapes), _chosen(WORKLOADS, options.workloads)):
        baselines += _measured(f"{shape.name} {workload.name}", lambda: measure_baselines(timer, shape, workload))  # noqa: B023
        for codec in options.codecs:
            case = f"{shape.name} {workload.name} {codec}"
            decodes.append(_measured(case, lambda: measure_decode(timer, shape, workload, codec)))  # noqa: B023
    return Results(
        device=torch.cuda.get_device_name(),
        versions={"torch": torch.__version__, "triton": triton.__version__, "cuda": str(torch.version.cuda)},
        copy_bytes_per_s=copy_bytes_per_s,
        decodes=tuple(decodes),
        baselines=tuple(baselines),
        sealings=tuple(_sealings(timer, decodes)),
        prefills=tuple(_prefills(timer, options.codecs)),
    )


def _sealings(timer: GraphTimer, decodes: Iterable[Decode]) -> Iterable[Sealing]:
    goal = (GOAL_SHAPE.name, GOAL_WORKLOAD.name)
    for decode in decodes:
        if (decode.shape, decode.workload) == goal:
            yield _measured(
                f"sealing {decode.codec}",
                lambda: measure_sealing(timer, GOAL_SHAPE, GOAL_WORKLOAD, decode),  # noqa: B023
            )


def _prefills(timer: GraphTimer, codecs: Iterable[str]) -> Iterable[Prefill]:
    for (num_before, num_new), codec in itertools.product(CHUNKS, codecs):
        yield _measured(
            f"prefill {num_new} after {num_before} {codec}",
            lambda: measure_prefill(timer, GOAL_SHAPE, num_before, num_new, codec),  # noqa: B023
        )


def _measured(case: str, measure: Callable[[], Measured]) -> Measured:
    """One measurement, announced, its memory given back."""
    print(case, file=sys.stderr, flush=True)
    measured = measure()
    gc.collect()
    torch.cuda.empty_cache()
    return measured


Named = TypeVar("Named", HeadShape, Workload)


def _chosen(every: tuple[Named, ...], names: list[str]) -> list[Named]:
    return [each for each in every if each.name in names]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Times the kernels on this machine's GPU.")
    shapes, workloads = [shape.name for shape in SHAPES], [workload.name for workload in WORKLOADS]
    parser.add_argument("--shapes", nargs="+", default=shapes, choices=shapes, help="query heads/KV heads/head size")
    parser.add_argument("--workloads", nargs="+", default=workloads, choices=workloads)
    parser.add_argument("--codecs", nargs="+", default=list(CODECS), choices=list(CODECS))
    parser.add_argument("--runs", type=int, default=50, help="timed runs of each case; the median counts")
    parser.add_argument("--folder", type=type(RESULTS_FOLDER), default=RESULTS_FOLDER, help="where results go")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
