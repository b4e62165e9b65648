"""What a run is told: Locust's own arguments and these, read into a `Plan` and its objectives."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from folio_client.connection import DEFAULT_URL
from folio_loadtests.briefing import Target
from folio_loadtests.course import Plan
from folio_loadtests.errors import RunError
from folio_loadtests.objectives import Objectives, read_objectives
from folio_loadtests.schedules import DEFAULT_DURATION_S, SHAPES, Schedule
from folio_loadtests.server_counts import MetricsPage
from folio_loadtests.workload import DEFAULT_FILE, read_workload

DEFAULT_USERS = 8
METRICS_PORT = 8002


def add_arguments(parser: ArgumentParser) -> None:
    """Adds a run's arguments; users, spawn rate, run time and host are Locust's. All travel to workers: no paths."""
    add = parser.add_argument_group("Folio").add_argument
    add("--shape", choices=SHAPES, default="steady", help="how load changes over the run (default: steady)")
    add("--arrival-rate", type=float, default=1.0, metavar="R", help="poisson: sessions a second (default: 1)")
    add(
        "--max-sessions", type=int, default=100, metavar="N", help="poisson: most at a time, each source (default: 100)"
    )
    add("--workload", default=str(DEFAULT_FILE), metavar="FILE", help="what users do and say (TOML)")
    add("--slo", metavar="FILE", help="objectives (TOML); the next four override it")
    for name in Objectives.model_fields:
        add(f"--slo-{name.replace('_', '-')}", dest=name, type=float, metavar="X", help=f"objective {name}")
    add("--warm-up", type=int, default=100, metavar="N", help="most requests of the warm-up (default: 100)")
    add("--warm-up-timeout-s", type=float, default=300.0, metavar="S", help="and most seconds (default: 300)")
    add("--drain-timeout-s", type=float, default=30.0, metavar="S", help="for requests under way at the end")
    add("--ready-timeout-s", type=float, default=60.0, metavar="S", help="for the server to be ready (default: 60)")
    add("--request-timeout-s", type=float, default=60.0, metavar="S", help="for one request (default: 60)")
    add("--model", default="smollm2", help="the generate model (default: smollm2)")
    add("--attention-model", default="attention", help="the attention model (default: attention)")
    add("--metrics", metavar="HOST:PORT", help="the server's metrics, or 'none' (default: its port 8002)")
    add("--report", default="load-report", metavar="DIR", help="for report.json and report.html")


@dataclass(frozen=True)
class RunOptions:
    """A whole run as it was asked for.

    Attributes:
        plan: what happens.
        objectives: what is promised.
        report: the folder for the results.
    """

    plan: Plan
    objectives: Objectives
    report: Path


def read_options(options: Namespace, host: str | None) -> RunOptions:
    """What Locust's parsed options say.

    Args:
        options: with the fields of `add_arguments`, and Locust's.
        host: the server's URL.

    Raises:
        RunError: they cannot be; the text says which.
    """
    _check_positive(options, "arrival_rate", "max_sessions", "request_timeout_s")
    url = host or DEFAULT_URL
    schedule = Schedule(
        shape=options.shape,
        num_users=options.num_users or DEFAULT_USERS,
        duration_s=options.run_time or DEFAULT_DURATION_S[options.shape],
        arrival_rate=options.arrival_rate,
    )
    plan = Plan(
        target=Target(url, options.model, options.attention_model, options.request_timeout_s),
        workload=read_workload(Path(options.workload)),
        schedule=schedule,
        metrics=_metrics(options.metrics, url, options.model),
        num_warm_up=options.warm_up,
        warm_up_timeout_s=options.warm_up_timeout_s,
        drain_timeout_s=options.drain_timeout_s,
        ready_timeout_s=options.ready_timeout_s,
        max_sessions=options.max_sessions,
    )
    slo = None if options.slo is None else Path(options.slo)
    given = {name: getattr(options, name) for name in Objectives.model_fields}
    return RunOptions(plan, read_objectives(slo, given), Path(options.report))


def _check_positive(options: Namespace, *names: str) -> None:
    for name in names:
        value = getattr(options, name)
        if value <= 0:
            raise RunError(f"--{name.replace('_', '-')} is {value}: allowed is more than 0.")


def _metrics(address: str | None, url: str, model: str) -> MetricsPage | None:
    if address == "none":
        return None
    return MetricsPage(address or f"{urlsplit(url).hostname}:{METRICS_PORT}", model)
