"""Who is told of an alert, and which alerts keep silent beside another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.docker.monitoring_files import ALERTMANAGER_FILE, alerts, load
from tests.docker.monitoring_programs import RunningAlertmanager, run_program
from tests.server.generate_client import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Labels = dict[str, str]


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAlertmanager]:
    """An Alertmanager with the configuration as it is; nobody is told before the tests are over."""
    with RunningAlertmanager(tmp_path_factory.mktemp("alertmanager"), ALERTMANAGER_FILE) as running:
        yield running


def test_the_configuration_is_accepted() -> None:
    assert "SUCCESS" in run_program("amtool", "check-config", ALERTMANAGER_FILE)


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: f"{rule['alert']} {rule['labels'].get('burn_rate', '')}")
def test_every_alert_goes_to_the_receiver_of_its_severity(rule: Mapping[str, Mapping[str, str]]) -> None:
    labels = {"alertname": rule["alert"], "model": "smollm2", **rule["labels"]}
    arguments = [f"{name}={value}" for name, value in labels.items()]
    told = run_program("amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER_FILE}", *arguments)
    assert told.split() == [rule["labels"]["severity"]]


def page(name: str, **labels: str) -> Labels:
    return {"alertname": name, "severity": "page", **labels}


def ticket(name: str, **labels: str) -> Labels:
    return {"alertname": name, "severity": "ticket", **labels}


GONE = page("FolioScrapeAbsent", instance="a")
HANGS = page("FolioEngineHeartbeatStale", instance="a", model="m")
BURNS = page("FolioAvailabilityBurn", model="m", burn_rate="6")
LATE = page("FolioFirstTokenBurn", model="m", burn_rate="14.4")


@pytest.mark.parametrize(
    ("told", "silent", "also_told"),
    [
        (GONE, page("FolioEngineHeartbeatStale", instance="a", model="m"), HANGS | {"instance": "b"}),
        (GONE, ticket("FolioMemoryHigh", instance="a", model="m"), GONE | {"instance": "b"}),
        (HANGS, ticket("FolioQueueGrowing", instance="a", model="m"), BURNS),
        (HANGS, ticket("FolioMemoryHigh", instance="a", model="m"), ticket("FolioMemoryHigh", instance="a", model="n")),
        (BURNS, ticket("FolioAvailabilityBurn", model="m", burn_rate="1"), LATE),
        (BURNS, ticket("FolioHighErrorRate", model="m"), ticket("FolioHighErrorRate", model="n")),
        (LATE, ticket("FolioHighLatency", model="m"), ticket("FolioHighLatency", model="n")),
        (LATE, ticket("FolioFirstTokenBurn", model="m", burn_rate="1"), ticket("FolioLowHitRate", model="m")),
    ],
)
def test_one_alert_silences_another(
    alertmanager: RunningAlertmanager, told: Labels, silent: Labels, also_told: Labels, request: pytest.FixtureRequest
) -> None:
    # A model and an instance of each case's own, so that cases do not touch.
    cases = [_of_case(labels, request.node.name) for labels in (told, silent, also_told)]
    alertmanager.post("/api/v2/alerts", [{"labels": labels} for labels in cases])

    def has_settled() -> bool:
        return _states(alertmanager, cases) == ["active", "suppressed", "active"]

    wait_until(has_settled)


def _of_case(labels: Labels, case: str) -> Labels:
    own = {name: f"{value} of {case}" for name, value in labels.items() if name in {"instance", "model"}}
    return {**labels, **own}


def _states(alertmanager: RunningAlertmanager, wanted: list[Labels]) -> list[str]:
    states = {
        tuple(sorted(alert["labels"].items())): alert["status"]["state"] for alert in alertmanager.get("/api/v2/alerts")
    }
    return [states.get(tuple(sorted(labels.items())), "unknown") for labels in wanted]


def test_no_receiver_but_the_two() -> None:
    names = {receiver["name"] for receiver in load(ALERTMANAGER_FILE)["receivers"]}
    assert names == {"page", "ticket"}
