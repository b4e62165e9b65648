"""An attention model's state as numbers, and the operations that show or end sessions.

Knows what each operation answers; how one is written and who may call it is `operations`'. Runs under the service's
lock.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from folio_backend.attention_sessions import AttentionSessions
from folio_backend.cache.page import PageKind, PageState
from folio_backend.cache_stats import cache_stats
from folio_backend.metrics import EngineSnapshot
from folio_backend.request import Operation
from folio_kernels.mixed_pool import AnyLayout

Answer = dict[str, object]


def take_snapshot(sessions: AttentionSessions, layout: AnyLayout, num_recompilations: int) -> EngineSnapshot:
    """The gauges and totals at this moment; nothing runs or waits between two batches."""
    counts = sessions.num_pages()
    page_bytes = {PageKind.RAW: layout.raw_page_bytes, PageKind.SEALED: layout.sealed_page_bytes}
    num_held = {kind: counts[kind, PageState.HELD] for kind in PageKind}
    stored_bytes = sum(num_held[kind] * page_bytes[kind] for kind in PageKind)
    return EngineSnapshot(
        num_running=0,
        num_waiting=0,
        num_pages={(kind.value, state.value): count for (kind, state), count in counts.items()},
        num_sessions=len(sessions),
        num_evictions={"idle": sessions.num_evicted_pages},
        num_preemptions=0,
        num_recompilations=num_recompilations,
        logical_bytes=sum(num_held.values()) * layout.fp16_page_bytes,
        stored_bytes=stored_bytes,
        memory_usage_bytes=stored_bytes,
        memory_limit_bytes=sum(count * page_bytes[kind] for (kind, _), count in counts.items()),
        heartbeat_s=time.time(),
    )


def carry_out(
    operation: Operation,
    sessions: AttentionSessions,
    layout: AnyLayout,
    settings: Mapping[str, object],
    num_recompilations: int,
) -> Answer:
    """What an operation answers.

    Args:
        operation: stats, health, sessions or close.
        sessions: what it is about.
        layout: the shape of a page.
        settings: what `stats` shows of the settings, without secrets.
        num_recompilations: compilations since the model became ready.

    Raises:
        NotFound: the session to close is not there.
    """
    if operation.name == "stats":
        return _stats(sessions, layout, settings, num_recompilations)
    if operation.name == "health":
        return _health(sessions)
    if operation.name == "sessions":
        return {"sessions": [{"session_id": s.session_id, "num_tokens": s.num_tokens} for s in sessions]}
    assert operation.name == "close"
    session_id = str(operation.arguments["session_id"])
    return {"closed": session_id, "num_tokens": sessions.close(session_id)}


def _stats(
    sessions: AttentionSessions, layout: AnyLayout, settings: Mapping[str, object], num_recompilations: int
) -> Answer:
    state = take_snapshot(sessions, layout, num_recompilations)
    return {
        **cache_stats(state, layout),
        "max_history_tokens": sessions.max_history_tokens,
        "settings": dict(settings),
    }


def _health(sessions: AttentionSessions) -> Answer:
    try:
        sessions.check_integrity()
    except AssertionError as error:
        return {"healthy": False, "integrity_error": str(error)}
    return {"healthy": True, "integrity_error": None}
