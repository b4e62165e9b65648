"""Rules and scrape configuration: accepted by Prometheus, tested one by one, and about metrics that there are."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import folio_backend
from folio_backend.engine_state import STALE_HEARTBEAT_S
from folio_backend.metric_definitions import TIME_TO_FIRST_TOKEN
from folio_dashboards import published
from folio_dashboards.board import Query
from tests.docker.monitoring_files import (
    DOCKER,
    PROMETHEUS,
    RULE_FILES,
    RUNBOOK,
    UNIT_TESTS,
    alerts,
    anchors,
    load,
    recorded_series,
    rules,
)
from tests.docker.monitoring_programs import run_program

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SUFFIX = re.compile(r"_(bucket|sum|count)$")
ANNOTATIONS = {"summary", "description", "runbook_url"}
# Refusals of operations on a session that is in use, and ends of running requests: no refused request.
NO_REFUSALS = {"session_busy", "decode_failure", "answer_failure", "engine_failure"}


def test_configuration_and_rules_are_accepted() -> None:
    said = run_program("promtool", "check", "config", "--lint-fatal", PROMETHEUS / "prometheus.yml")
    assert all(f"Checking {path}" in said for path in RULE_FILES)


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_unit_tests_pass(path: Path) -> None:
    assert "SUCCESS" in run_program("promtool", "test", "rules", path)


def unit_tests_of_alerts() -> Iterator[Mapping[str, Any]]:
    for path in UNIT_TESTS:
        for case in load(path)["tests"]:
            yield from case.get("alert_rule_test", ())


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: f"{rule['alert']} {rule['labels'].get('burn_rate', '')}")
def test_every_alert_is_tested_firing_and_silent(rule: Mapping[str, Any]) -> None:
    fires = [
        any(rule["labels"].items() <= expected["exp_labels"].items() for expected in case["exp_alerts"])
        for case in unit_tests_of_alerts()
        if case["alertname"] == rule["alert"]
    ]
    assert True in fires
    assert False in fires


def test_every_alert_says_what_to_do() -> None:
    for rule in alerts():
        assert rule["annotations"].keys() == ANNOTATIONS, rule["alert"]
        assert rule["labels"]["severity"] in {"page", "ticket"}, rule["alert"]
        path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert DOCKER.parent / path == RUNBOOK
        assert anchor == rule["alert"].lower()


def test_the_runbook_has_a_section_for_every_alert_and_no_other() -> None:
    sections = [anchor for anchor in anchors(RUNBOOK) if anchor.startswith("folio")]
    assert sorted(sections) == sorted({rule["alert"].lower() for rule in alerts()})
    links = re.findall(r"\]\(#(.+?)\)", RUNBOOK.read_text())
    assert set(links) <= set(sections)


def test_rules_read_metrics_that_there_are() -> None:
    read = {SUFFIX.sub("", name) for rule in rules() for name in Query(rule["expr"], "").metrics()}
    assert read
    assert read <= published.everywhere()


def test_rules_read_recorded_series_that_there_are() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    read = {name for rule in rules() for name in recorded_series(rule["expr"])}
    assert read <= recorded


def reasons_in_source(*error_names: str) -> set[str]:
    """The reasons that the backend gives errors of these classes, by reading its source."""
    sources = Path(folio_backend.__path__[0]).rglob("*.py")
    nodes = [node for path in sources for node in ast.walk(ast.parse(path.read_text()))]
    calls = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    return {_reason(call) for call in calls if ast.unparse(call.func) in error_names}


def _reason(call: ast.Call) -> str:
    given = {word.arg: word.value for word in call.keywords}
    if "reason" not in given:
        return ast.unparse(call.func).lower()
    return str(ast.literal_eval(given["reason"]))


def test_refusals_that_count_as_failures_are_those_that_are_our_fault() -> None:
    (expression,) = (rule["expr"] for rule in rules() if rule.get("record") == "model:folio_request_errors:rate5m")
    (matcher,) = re.findall(r'folio_rejections_total\{reason=~"(.+?)"\}', expression)
    counted = set(matcher.split("|"))
    assert reasons_in_source("Unavailable", "Internal") - NO_REFUSALS <= counted
    assert not counted & reasons_in_source("InvalidArgument", "NotFound", "AlreadyExists", "Cancelled")


def test_bounds_are_those_of_the_backend() -> None:
    expressions = {rule.get("alert") or rule["record"]: rule["expr"] for rule in rules()}
    assert expressions["FolioEngineHeartbeatStale"].endswith(f"> {STALE_HEARTBEAT_S:.0f}")
    (bound,) = re.findall(r"vector\((.+)\)", expressions["folio:objective_first_token_seconds"])
    assert float(bound) == 1.0
    assert float(bound) in TIME_TO_FIRST_TOKEN.buckets
