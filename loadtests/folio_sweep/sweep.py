"""The sweep itself: server by server, series by series, level by level, each level a run of perf_analyzer.

Knows the order and what a failure ends. Does not know how results are written or shown.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import get_args

from folio_sweep.analyzer import PerfAnalyzer
from folio_sweep.errors import LevelFailed
from folio_sweep.level_run import run_level
from folio_sweep.measurement import measure
from folio_sweep.options import Options, TaskOptions
from folio_sweep.plan import concurrency_levels, rate_levels, rates_below_and_above
from folio_sweep.series import Level, LoadMode, Point, Series, Workload
from folio_sweep.server import started_server, write_repository
from folio_sweep.target import Target, describe_attention, describe_generate
from folio_sweep.workload import SessionPlan, prepared_rows


class Sweep:
    """One sweep.

    Args:
        options: what was asked for.
        analyzer: the program that measures.
        say: told what begins.
    """

    def __init__(self, options: Options, analyzer: PerfAnalyzer, say: Callable[[str], None]) -> None:
        self._options = options
        self._analyzer = analyzer
        self._say = say
        # As the first codec's peaks decide, so that all codecs face the same.
        self._rates: dict[tuple[str, Workload], tuple[float, ...]] = {}
        self._num_runs = 0
        # A folder of its own: perf_analyzer writes over no earlier sweep's export.
        self._runs = options.out / "runs" / datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%f")

    def points(self) -> Iterator[Point]:
        """Measures; each point as soon as it is there.

        Raises:
            SweepError: a server does not start, or lacks a model.
            FolioError: a server refuses what a level needs.
        """
        options = self._options
        if options.host:
            yield from self._server_points(options.host, options.attention.models)
            return
        models = (options.generate.models, options.attention.models)
        with tempfile.TemporaryDirectory(prefix="folio_sweep_") as folder:
            repository = Path(folder, "models")
            attention_models = write_repository(repository, options.model_repository, *models, options.batch_delays_us)
            for codec in options.codecs:
                self._say(f"starting a server with codec {codec}")
                with started_server(repository, codec, options.out / f"server-{codec}.log") as address:
                    yield from self._server_points(address, attention_models)

    def _server_points(self, address: str, attention_models: tuple[str, ...]) -> Iterator[Point]:
        targets = [describe_generate(address, model) for model in self._options.generate.models]
        targets += [describe_attention(address, model) for model in attention_models]
        workloads = [workload for workload in get_args(Workload) if workload in self._options.workloads]
        for target in targets:
            self._warm_up(target, workloads[0])
            for workload in workloads:
                yield from self._workload_points(target, workload)

    def _workload_points(self, target: Target, workload: Workload) -> Iterator[Point]:
        sizes = self._sizes(target)
        measured: list[Point] = []
        if "concurrency" in self._options.modes:
            for level in concurrency_levels(sizes):
                measured.append(self._point(_series(target, workload, "concurrency"), target, level))
                yield measured[-1]
        if "request_rate" in self._options.modes:
            rates = sizes.rates or self._rates.setdefault((target.model, workload), rates_below_and_above(measured))
            for level in rate_levels(rates, sizes):
                yield self._point(_series(target, workload, "request_rate"), target, level)

    def _warm_up(self, target: Target, workload: Workload) -> None:
        """Runs a level that counts nowhere: connections, pools and caches of the processor are cold only here."""
        self._say(f"warming {target.model} up")
        level = Level("concurrency", 1, 2)
        self._point(_series(target, workload, "concurrency"), target, level)

    def _point(self, series: Series, target: Target, level: Level) -> Point:
        options = self._options
        self._num_runs += 1
        name = f"{self._num_runs:03}-{target.codec}-{target.model}-{series.workload}-{level.mode}-{level.value:g}"
        plan = SessionPlan(target, level, series.workload, self._sizes(target), options.output_tokens)
        try:
            with prepared_rows(plan) as rows:
                limit_s = options.level_limit_s
                requests = run_level(self._analyzer, target, level, rows, self._runs / name, limit_s=limit_s)
            return Point(series, level, measure(requests, level.request_rate))
        except LevelFailed as failure:
            return Point(series, level, None, str(failure))

    def _sizes(self, target: Target) -> TaskOptions:
        return self._options.generate if target.task == "generate" else self._options.attention


def _series(target: Target, workload: Workload, mode: LoadMode) -> Series:
    return Series(target.codec, target.task, target.model, target.batch_delay_us, workload, mode)
