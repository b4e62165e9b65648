"""A real server under load, watched by a real Prometheus that tells a real Alertmanager, with the files as they are."""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.docker.monitored_server import alertmanager_configuration, prometheus_configuration
from tests.docker.monitoring_files import DASHBOARDS, RUNBOOK, anchors, dashboard_queries, rules
from tests.docker.monitoring_programs import RunningAlertmanager, RunningPrometheus, run_program
from tests.docker.webhook import Webhook
from tests.server.generate_client import GenerateClient, sampling, wait_until
from tests.server.grpc_stream import Refused
from tests.server.metrics_page import MetricsPage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.docker.monitoring_files import DashboardQuery
    from tests.server.running_server import RunningServer

# Two pages and some that no other test has in the cache.
LONG_TEXT = "Whoever watches a cache sees the same words come by again, and again, and again. " * 9
# The smallest bucket; no model answers as fast.
BOUND_S = 0.001
ALERT = "FolioHighLatency"
SCRAPES = 'count_over_time(up{job="folio"}[10m])'
OURS = re.compile("(# HELP |# TYPE )?(folio|kv_cache)_")
# Known also where the last scrape took too long.
FINISHED = 'sum(last_over_time(folio_requests_finished_total{model="smollm2"}[1m]))'


@dataclass(frozen=True)
class Watched:
    """What is left of a run under load.

    Attributes:
        prometheus: holds its series.
        webhook: was told of its alerts.
        start_s: the first scrape, in seconds since 1970, a while before the load.
        end_s: when every recorded series knew of the load, and the webhook of the alert.
        num_alerts_before: series of alert `ALERT` before the load.
    """

    prometheus: RunningPrometheus
    webhook: Webhook
    start_s: float
    end_s: float
    num_alerts_before: int


@pytest.fixture(scope="module")
def watched(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A run: some seconds of nothing, then some requests of every kind."""
    folder = tmp_path_factory.mktemp("monitoring")
    with (
        Webhook() as webhook,
        RunningAlertmanager(folder, alertmanager_configuration(folder, webhook=webhook.address)) as alertmanager,
        RunningPrometheus(
            folder,
            prometheus_configuration(
                folder,
                server=server.metrics_address,
                alertmanager=alertmanager.address,
                impatient=ALERT,
                bound_s=BOUND_S,
            ),
        ) as prometheus,
    ):
        wait_until(lambda: prometheus.knows_alertmanager() and max(prometheus.values(SCRAPES), default=0) > 3)
        start_s = time.time() - 2
        num_alerts_before = len(prometheus.values(f'ALERTS{{alertname="{ALERT}"}}'))
        finished_before = prometheus.values(FINISHED)[0]
        num_requests = send_load(GenerateClient(server))
        wait_until(lambda: prometheus.values(FINISHED)[0] >= finished_before + num_requests)
        wait_until(lambda: recorded(prometheus) >= {rule["record"] for rule in rules() if "record" in rule})
        wait_until(lambda: bool(webhook.alerts(ALERT)))
        yield Watched(prometheus, webhook, start_s, time.time(), num_alerts_before)


def send_load(client: GenerateClient) -> int:
    """Sends requests that miss, hit, resume a session, and are refused; returns how many finish."""
    for _ in range(2):
        client.generate(text_input=LONG_TEXT, sampling_parameters=sampling(max_tokens=4, ignore_eos=True))
    client.generate(text_input="Once", session_id="watched", sampling_parameters=sampling(max_tokens=2))
    client.generate(text_input=" more", session_id="watched", sampling_parameters=sampling(max_tokens=2))
    client.operation("close", session_id="watched")
    with pytest.raises(Refused):
        client.generate(text_input="Hello", temperature=-1)
    return 4


def recorded(prometheus: RunningPrometheus) -> set[str]:
    """Names of the recorded series that have a value now."""
    answer = prometheus.get("/api/v1/query", query='group by (__name__) ({__name__=~".+:.+"})')
    return {series["metric"]["__name__"] for series in answer["data"]["result"]}


@pytest.mark.usefixtures("watched")
def test_our_metrics_pass_prometheus_checks(server: RunningServer) -> None:
    ours = [line for line in MetricsPage(server.metrics_address).text().splitlines() if OURS.match(line)]
    assert len(ours) > 100
    assert not run_program("promtool", "check", "metrics", stdin="\n".join(ours) + "\n")


def test_every_rule_was_evaluated_without_error(watched: Watched) -> None:
    groups = watched.prometheus.get("/api/v1/rules")["data"]["groups"]
    evaluated = [rule for group in groups for rule in group["rules"]]
    assert len(evaluated) == len(rules())
    assert {rule["name"]: rule["lastError"] for rule in evaluated if rule.get("lastError")} == {}


@pytest.mark.parametrize("query", dashboard_queries(), ids=lambda query: query.place)
def test_no_panel_is_empty_and_nothing_is_not_a_number(watched: Watched, query: DashboardQuery) -> None:
    expression = query.filled_in("1m")
    values = watched.prometheus.range(expression, watched.start_s, watched.end_s)
    assert values, expression
    assert all(map(math.isfinite, values)), expression


def test_dashboards_offer_the_servers_and_models_that_there_are(watched: Watched, server: RunningServer) -> None:
    for path in DASHBOARDS:
        variables = {variable["name"]: variable for variable in json.loads(path.read_text())["templating"]["list"]}
        offered = {name: offers(watched, variables[name]["query"]) for name in ("instance", "model")}
        assert offered == {"instance": [server.metrics_address], "model": ["attention", "smollm2"]}


def offers(watched: Watched, query: str) -> list[str]:
    """What Grafana offers for `label_values(series, label)`."""
    selector, _, label = query.removeprefix("label_values(").removesuffix(")").rpartition(", ")
    values = watched.prometheus.get(f"/api/v1/label/{label}/values", **{"match[]": selector})["data"]
    return sorted(values)


def test_slow_first_tokens_are_told_to_the_webhook(watched: Watched) -> None:
    assert watched.num_alerts_before == 0
    path, alert = watched.webhook.alerts(ALERT)[0]
    assert path == "/ticket"
    assert alert["status"] == "firing"
    assert alert["labels"] == {"alertname": ALERT, "model": "smollm2", "severity": "ticket"}
    assert alert["annotations"]["summary"].startswith("smollm2: ")
    assert alert["annotations"]["runbook_url"].partition("#")[2] in anchors(RUNBOOK)
