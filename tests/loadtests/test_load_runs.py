"""Whole load tests against a real server: each verdict, by its exit status and by what the report says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from folio_loadtests.verdict import MOST_CPU_SHARE, MOST_LATE_S, Status
from tests.docker.monitored_server import prometheus_configuration
from tests.docker.monitoring_programs import RunningPrometheus
from tests.loadtests.load_run import LoadRun, StartedLoad, first_in_line, run_load
from tests.server.generate_client import GenerateClient, sampling, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.loadtests.faulty_backend import FaultyBackend
    from tests.server.running_server import RunningServer

# The tests' own bounds: these servers are not there to be fast.
LENIENT = ("--slo-p95-first-token-s=30", "--slo-p95-inter-token-s=30", "--slo-goodput=0", "--slo-error-rate=0")
PAUSE_S = 5
# Known also where the last scrape took too long.
GENERATED = 'sum(last_over_time(folio_generated_tokens_total{model="smollm2"}[1m]))'
RUNNING = 'folio_requests_running{model="smollm2"}'
SCRAPES = 'up{job="folio"}'


def http(server: RunningServer) -> str:
    """The server over HTTP; without this a load test speaks gRPC."""
    return f"--host=http://{server.http_address}"


def cohort(document: dict[str, Any], name: str) -> dict[str, Any]:
    return next(dict(found) for found in document["cohorts"] if found["cohort"] == name)


def verdict(run: LoadRun, status: Status) -> Status:
    """A status, unless the machine kept the generator waiting: then the run has to say that it measured nothing."""
    loads = run.document["generator"]
    was_in_time = all(load["late_p99_s"] <= MOST_LATE_S and load["cpu_share"] <= MOST_CPU_SHARE for load in loads)
    return status if was_in_time else Status.INVALID


def test_a_short_run_passes_and_shows_its_warm_up_apart(loaded_server: RunningServer, tmp_path: Path) -> None:
    arguments = (http(loaded_server), "--users=8", "--run-time=30s", *LENIENT)
    run = run_load(loaded_server, tmp_path, *arguments, before=first_in_line())
    assert run.status == verdict(run, Status.PASSED), run.output
    document = run.document
    assert document["run"]["duration_s"] == pytest.approx(30, abs=3)
    assert document["outcomes"]["failed"] == document["outcomes"]["wrong"] == 0
    warm_up = document["warm_up"]
    assert warm_up["num_requests"] >= 50
    assert warm_up["cold_start_first_token_s"] > 0
    assert {kind["kind"] for kind in document["kinds"]} >= {"chat", "one_shot", "document", "attention", "probe"}
    assert all(cohort(document, name)["num_requests"] for name in ("cold", "resident", "evicted, recomputed"))
    assert document["checks"]["num_compared"] == document["checks"]["num_equal"] > 3
    assert all(entry["agrees"] and entry["client"] for entry in document["server"]["tokens"])
    assert document["server"]["client_mean_first_token_s"] > document["server"]["server_mean_first_token_s"] > 0
    assert "measurement" in run.output
    assert "src=" not in run.page, "the page needs nothing from elsewhere"
    assert run.page.count("<svg") == 4


def test_a_slow_server_misses_its_objective(
    loaded_server: RunningServer, faulty_backend: FaultyBackend, tmp_path: Path
) -> None:
    faulty_backend.make_slow()
    bounds = [*LENIENT[2:], "--slo-p95-first-token-s=30", "--slo-p95-inter-token-s=0.1"]
    arguments = ("--users=2", "--run-time=3s", "--warm-up=5", *bounds)
    run = run_load(loaded_server, tmp_path, *arguments, before=first_in_line())
    assert run.status == verdict(run, Status.MISSED), run.output
    assert [objective["name"] for objective in run.document["objectives"] if not objective["is_met"]] == [
        "p95_inter_token_s"
    ]


def test_a_fast_wrong_cache_fails_the_run(
    loaded_server: RunningServer, faulty_backend: FaultyBackend, tmp_path: Path
) -> None:
    faulty_backend.make_wrong()
    run = run_load(loaded_server, tmp_path, "--users=4", "--run-time=5s", "--warm-up=5", *LENIENT)
    assert run.status == Status.WRONG, run.output
    assert run.document["outcomes"]["wrong"] or run.document["warm_up"]["outcomes"]["wrong"]
    assert "not as its reference" in run.output


def test_a_starved_generator_is_no_measurement(loaded_server: RunningServer, tmp_path: Path) -> None:
    load = StartedLoad(loaded_server, tmp_path, ("--users=2", "--run-time=4s", "--warm-up=1", *LENIENT))
    wait_until(lambda: "measurement" in load.output or not load.is_running)
    core = min(os.sched_getaffinity(0))
    with ExitStack() as neighbours:
        for _ in range(2):
            neighbour = neighbours.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            neighbours.callback(neighbour.kill)
            os.sched_setaffinity(neighbour.pid, {core})
        os.sched_setaffinity(load.pid, {core})
        os.setpriority(os.PRIO_PROCESS, load.pid, 10)
        wait_until(lambda: "ending" in load.output or not load.is_running)
    run = load.wait()
    assert run.status == Status.INVALID, run.output
    assert run.document["generator"][0]["late_p99_s"] > 0.010
    assert "late at the 99th percentile" in run.output


def test_a_paused_server_shows_in_the_latency_from_the_intended_start(
    loaded_server: RunningServer, tmp_path: Path
) -> None:
    """Half of the arrivals of a pause find no room to be sent: what is measured from sending hides them."""
    arguments = ("--shape=poisson", "--arrival-rate=20", "--max-sessions=2", "--users=1", "--run-time=12s")
    load = StartedLoad(loaded_server, tmp_path, (*arguments, "--warm-up=10", *LENIENT))
    wait_until(lambda: "measurement" in load.output or not load.is_running)
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in (loaded_server.server_pid(), *loaded_server.stub_pids()):
            loaded_server.signal(number, pid)
        if number is signal.SIGSTOP:
            time.sleep(PAUSE_S)  # the pause is what is tested
    run = load.wait()
    latency = run.document["latency"]
    assert latency["intended"]["p99"] > 4
    assert latency["intended"]["p99"] > latency["sent"]["p99"]
    assert any("Coordinated omission" in note for note in run.document["notes"])
    assert "Coordinated omission" in run.page


def test_several_processes_report_as_one(loaded_server: RunningServer, tmp_path: Path) -> None:
    run = run_load(loaded_server, tmp_path, "--processes=2", "--users=4", "--run-time=3s", "--warm-up=5", *LENIENT)
    assert run.status == verdict(run, Status.PASSED), run.output
    assert len(run.document["generator"]) == 2
    assert all(load["cpu_share"] > 0 for load in run.document["generator"])
    assert all(entry["agrees"] and entry["client"] for entry in run.document["server"]["tokens"])


def test_prometheus_sees_the_whole_of_a_load_test_and_what_runs(
    loaded_server: RunningServer, faulty_backend: FaultyBackend, tmp_path: Path
) -> None:
    configuration = prometheus_configuration(
        tmp_path,
        server=loaded_server.metrics_address,
        alertmanager="127.0.0.1:9",
        impatient="FolioHighLatency",
        bound_s=1,
    )
    with RunningPrometheus(tmp_path, configuration) as prometheus:
        wait_until(lambda: bool(prometheus.values(GENERATED)))
        before = prometheus.values(GENERATED)[0]
        run = run_load(loaded_server, tmp_path, "--users=4", "--run-time=3s", "--warm-up=5", *LENIENT)
        assert run.status == verdict(run, Status.PASSED), run.output
        (generated,) = (entry for entry in run.document["server"]["tokens"] if entry["kind"] == "generated")
        wait_until(lambda: prometheus.values(GENERATED)[0] >= before + generated["client"] > before)
        assert prometheus.values(f"sum_over_time({SCRAPES}[2m])")[0] >= 3
        faulty_backend.make_slow()
        endless = sampling(max_tokens=800, ignore_eos=True)
        with GenerateClient(loaded_server).stream({"text_input": "Tick", "sampling_parameters": endless}):
            wait_until(lambda: prometheus.values(RUNNING) == [1])


def test_a_server_that_is_not_there_is_said(loaded_server: RunningServer, tmp_path: Path) -> None:
    run = run_load(loaded_server, tmp_path, "--host=grpc://127.0.0.1:9", "--ready-timeout-s=0.5")
    assert run.status == Status.NOT_RUN
    assert "cannot be tested" in run.output
    assert not run.document
