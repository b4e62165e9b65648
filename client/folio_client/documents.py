"""What admin operations answer, from JSON to values: pure functions, shared by both clients."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from folio_client.errors import NotFound, ServerError
from folio_client.types import Health, PageCounts, SessionInfo, Stats

READS = frozenset({"stats", "health", "sessions"})
"""Operations that change nothing, and so may be repeated."""


def read_document(text: str) -> dict[str, Any]:
    """An operation's answer; raises ServerError where it is no JSON object."""
    try:
        members = json.loads(text)
    except ValueError:
        members = None
    if not isinstance(members, dict):
        raise ServerError("The operation's answer is not a JSON object.")
    return members


def read_stats(members: Mapping[str, Any]) -> Stats:
    """What `stats` answers."""
    requests = members.get("requests", {})
    return Stats(
        num_running_requests=requests.get("running"),
        num_waiting_requests=requests.get("waiting"),
        num_sessions=members["sessions"],
        pages={kind: _page_counts(states) for kind, states in members["pages"].items()},
        num_evictions=members["evictions"],
        num_preemptions=members.get("preemptions"),
        num_recompilations=members["recompilations"],
        memory_usage_bytes=members["memory_usage_bytes"],
        memory_limit_bytes=members["memory_limit_bytes"],
        page_size=members["page_size"],
        bytes_per_token=members["bytes_per_token"],
        bytes_per_token_fp16=members["bytes_per_token_fp16"],
        codec=members["codec"],
        document=members,
    )


def read_health(members: Mapping[str, Any]) -> Health:
    """What `health` answers."""
    return Health(members["healthy"], members.get("heartbeat_age_s"), members.get("integrity_error"))


def read_session(members: Mapping[str, Any]) -> SessionInfo:
    """One session of what `sessions`, `fork` and `truncate` answer."""
    return SessionInfo(
        session_id=members["session_id"],
        num_tokens=members["num_tokens"],
        num_resident_tokens=members.get("num_resident_tokens"),
        num_turns=members.get("num_turns"),
        is_idle=members.get("idle"),
    )


def read_sessions(members: Mapping[str, Any]) -> tuple[SessionInfo, ...]:
    """What `sessions` answers."""
    return tuple(map(read_session, members["sessions"]))


def find_session(sessions: Iterable[SessionInfo], session_id: str) -> SessionInfo:
    """The session of that name; raises NotFound."""
    for info in sessions:
        if info.session_id == session_id:
            return info
    raise NotFound("There is no such session.", field="session_id")


def _page_counts(states: Mapping[str, int]) -> PageCounts:
    return PageCounts(states["free"], states["cached"], states["held"], states["loading"])
