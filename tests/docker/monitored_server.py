"""The product's own Prometheus and Alertmanager configuration around a server under test.

What is tested stays as it is written: every expression, label, route and receiver. What a test cannot wait for, or
cannot know beforehand, is replaced in a copy: addresses, the pauses between scrapes, evaluations and notifications, one
alert's `for`, and the objective that a test means to miss.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import yaml

from tests.docker.monitoring_files import ALERTMANAGER_FILE, PROMETHEUS, load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHORT = "1s"


def prometheus_configuration(folder: Path, *, server: str, alertmanager: str, impatient: str, bound_s: float) -> Path:
    """A copy of the configuration.

    Args:
        folder: where to.
        server: address of a server's metrics.
        alertmanager: address of an Alertmanager.
        impatient: the alert that fires without waiting.
        bound_s: the bound on the time to the first token, in seconds.

    Returns:
        The configuration file.
    """
    copy = folder / "prometheus"
    shutil.copytree(PROMETHEUS, copy)
    _write(copy / "targets" / "folio.yml", [{"targets": [server]}])
    _write(copy / "targets" / "alertmanager.yml", [{"targets": [alertmanager]}])
    _change(copy / "prometheus.yml", lambda content: content["global"].update(_intervals()))
    _change_rule(copy, "alert", impatient, {"for": "0s"})
    _change_rule(copy, "record", "folio:objective_first_token_seconds", {"expr": f"vector({bound_s})"})
    return copy / "prometheus.yml"


def alertmanager_configuration(folder: Path, *, webhook: str) -> Path:
    """A copy of the configuration that tells `webhook` (`host:port`), at once; returns the file."""
    content = load(ALERTMANAGER_FILE)
    for route in (content["route"], *content["route"]["routes"]):
        route.update({name: SHORT for name in ("group_wait", "group_interval") if name in route})
    for receiver in content["receivers"]:
        for hook in receiver["webhook_configs"]:
            hook["url"] = hook["url"].replace("localhost:9095", webhook)
    copy = folder / "alertmanager.yml"
    _write(copy, content)
    return copy


def _intervals() -> dict[str, str]:
    return {"scrape_interval": SHORT, "evaluation_interval": SHORT}


def _change_rule(copy: Path, kind: str, name: str, members: dict[str, str]) -> None:
    changed = []

    def change(content: Any) -> None:
        for rule in (rule for group in content["groups"] for rule in group["rules"]):
            if rule.get(kind) == name:
                changed.append(rule)
                rule.update(members)

    for path in (copy / "rules").glob("*.yml"):
        _change(path, change)
    assert len(changed) == 1, name


def _change(path: Path, change: Callable[[Any], None]) -> None:
    content = load(path)
    change(content)
    _write(path, content)


def _write(path: Path, content: object) -> None:
    path.write_text(yaml.safe_dump(content))
