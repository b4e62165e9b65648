"""The monitoring's files as a reader of them sees them: rules, unit tests, dashboards.

Knows where they lie and how they are laid out; nothing of what they should say.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DOCKER = Path(__file__).parents[2] / "docker"
PROMETHEUS = DOCKER / "prometheus"
ALERTMANAGER_FILE = DOCKER / "alertmanager" / "alertmanager.yml"
RUNBOOK = DOCKER / "RUNBOOK.md"
RULE_FILES = sorted((PROMETHEUS / "rules").glob("*.yml"))
UNIT_TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
DASHBOARDS = sorted((DOCKER / "grafana" / "dashboards").glob("*.json"))

_RECORDED_SERIES = re.compile(r"\b(?:model|instance_model|folio):[\w:]+")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class DashboardQuery:
    """One query of a committed dashboard.

    Attributes:
        place: dashboard and panel.
        expression: PromQL with Grafana's variables.
    """

    place: str
    expression: str

    def filled_in(self, rate_interval: str) -> str:
        """What Grafana sends when everything is chosen."""
        text = self.expression.replace("$__rate_interval", rate_interval)
        return text.replace("$instance", ".*").replace("$model", ".*")

    def recorded_series(self) -> list[str]:
        """Names of the recorded series that it reads."""
        return recorded_series(self.expression)


def load(path: Path) -> Any:
    """The content of a YAML file."""
    return yaml.safe_load(path.read_text())


def rules() -> list[dict[str, Any]]:
    """Every recording and alert rule."""
    return [rule for path in RULE_FILES for group in load(path)["groups"] for rule in group["rules"]]


def recorded_series(expression: str) -> list[str]:
    """Names of the recorded series that an expression reads: those with colons."""
    return _RECORDED_SERIES.findall(expression)


def alerts() -> list[dict[str, Any]]:
    """Every alert rule."""
    return [rule for rule in rules() if "alert" in rule]


def dashboard_queries() -> list[DashboardQuery]:
    """Every query of every committed dashboard."""
    return [
        DashboardQuery(f"{path.stem}: {panel['title']}", target["expr"])
        for path in DASHBOARDS
        for panel in json.loads(path.read_text())["panels"]
        for target in panel.get("targets", ())
    ]


def anchors(path: Path) -> list[str]:
    """What a link to a heading of a Markdown file may be, for headings of one word."""
    return [heading.lower() for heading in _HEADING.findall(path.read_text()) if " " not in heading]
