"""The runbook: what it tells people to look at is there, and what it tells them to type works."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from folio_backend.config import Settings
from folio_dashboards import published
from tests.docker.monitoring_files import DASHBOARDS, PROMETHEUS, RUNBOOK
from tests.docker.monitoring_programs import run_program

if TYPE_CHECKING:
    from tests.server.running_server import RunningServer

EMPHASISED = re.compile(r"(?<!\*)\*([^*]+)\*(?!\*)")
IDENTIFIER = re.compile(r"`([a-z]+(?:_[a-z]+)+)`")
CODE = re.compile(r"`[^`]+`")
BLOCK = re.compile(r"^```\n(.+?)^```", re.MULTILINE | re.DOTALL)
SEVERITIES = {"page", "ticket"}
# Reasons of refusals and ends, members of requests, answers and log lines, and the server's own setting.
OTHER_NAMES = {
    "queue_full",
    "no_pages",
    "model_failure",
    "decode_failure",
    "retry_after_ms",
    "heartbeat_age_s",
    "deadline_ms",
    "runbook_url",
    "request_id",
    "trace_id",
    "queue_s",
    "prefill_s",
    "decode_s",
    "send_s",
    "ttft_s",
    "total_s",
    "attend_s",
    "num_prompt_tokens",
    "num_cached_tokens",
    "num_generated_tokens",
    "num_tokens",
    "num_history_tokens",
    "max_batch_size",
}


def prose() -> str:
    """The runbook without its blocks of commands."""
    return BLOCK.sub("", RUNBOOK.read_text())


def titles() -> set[str]:
    """Titles of every dashboard, row and panel."""
    documents = [json.loads(path.read_text()) for path in DASHBOARDS]
    panels = {panel["title"] for document in documents for panel in document["panels"]}
    return panels | {document["title"] for document in documents}


def test_the_dashboards_rows_and_panels_that_it_names_are_there() -> None:
    named = {" ".join(name.split()) for name in EMPHASISED.findall(CODE.sub("", prose()))} - SEVERITIES
    assert len(named) > 10
    assert named <= titles()


def test_the_settings_and_metrics_that_it_names_are_there() -> None:
    named = set(IDENTIFIER.findall(prose()))
    assert len(named) > 10
    assert named <= Settings.model_fields.keys() | published.everywhere() | OTHER_NAMES


def test_the_files_that_it_names_are_there() -> None:
    patterns = re.findall(r"`prometheus/(\S+?)`", prose())
    assert patterns
    assert [pattern for pattern in patterns if not list(PROMETHEUS.glob(pattern))] == []


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_its_first_commands_show_a_server_s_state(server: RunningServer) -> None:
    commands = BLOCK.findall(RUNBOOK.read_text())[0]
    for default, actual in {"localhost:8002": server.metrics_address, "localhost:8000": server.http_address}.items():
        assert default in commands
        commands = commands.replace(default, actual)
    shown = run_program("bash", "-euo", "pipefail", "-c", commands)
    assert r"\"healthy\": true" in shown
    assert r"\"pages\": " in shown
    assert 'kv_cache_requests_total{model="smollm2"' in shown
