"""The engine's state as numbers: for metrics and for `op: stats`.

Reads under the engine's lock, changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from folio_backend.cache.page import PageKind, PageState
from folio_backend.cache_stats import cache_stats
from folio_backend.engine import Engine
from folio_backend.metrics import EngineSnapshot

STALE_HEARTBEAT_S = 60.0
"""A step of a full prefill chunk takes seconds at most; an engine silent for longer hangs."""


def num_pages_by_state(engine: Engine) -> dict[tuple[str, str], int]:
    """(kind, state) to the number of pages."""
    counts = engine.parts.cache.store.count_states()
    return {(kind.value, state.value): count for (kind, state), count in counts.items()}


def snapshot(engine: Engine, num_recompilations: int) -> EngineSnapshot:
    """The engine's gauges and totals at this moment."""
    return engine.locked(lambda: _snapshot(engine, num_recompilations))


def _snapshot(engine: Engine, num_recompilations: int) -> EngineSnapshot:
    parts, layout = engine.parts, engine.parts.runner.operations.pool.layout
    counts = parts.cache.store.count_states()
    used = {kind: counts[kind, PageState.HELD] + counts[kind, PageState.CACHED] for kind in PageKind}
    stored_bytes = used[PageKind.RAW] * layout.raw_page_bytes + used[PageKind.SEALED] * layout.sealed_page_bytes
    num_running = sum(generation.first_step_s is not None for generation in engine.live)
    return EngineSnapshot(
        num_running=num_running,
        num_waiting=len(engine.live) - num_running,
        num_pages=num_pages_by_state(engine),
        num_sessions=len(parts.sessions),
        num_evictions=dict(parts.cache.store.evictions),
        num_preemptions=parts.scheduler.num_preemptions,
        num_recompilations=num_recompilations,
        logical_bytes=sum(used.values()) * layout.fp16_page_bytes,
        stored_bytes=stored_bytes,
        memory_usage_bytes=stored_bytes,
        memory_limit_bytes=memory_bytes(engine),
        heartbeat_s=engine.heartbeat_s,
    )


def memory_bytes(engine: Engine) -> int:
    """Bytes of all pages."""
    layout, num_pages = engine.parts.runner.operations.pool.layout, engine.parts.cache.store.num_pages
    return num_pages.raw * layout.raw_page_bytes + num_pages.sealed * layout.sealed_page_bytes


def stats(engine: Engine, settings: Mapping[str, object], num_recompilations: int) -> dict[str, object]:
    """What `op: stats` answers: counts of everything, and how the cache is set up."""
    state, layout = snapshot(engine, num_recompilations), engine.parts.runner.operations.pool.layout
    return {
        "requests": {"running": state.num_running, "waiting": state.num_waiting},
        **cache_stats(state, layout),
        "preemptions": state.num_preemptions,
        "max_model_tokens": engine.parts.max_model_tokens,
        "settings": dict(settings),
    }


def health(engine: Engine) -> dict[str, object]:
    """What `op: health` answers: whether the engine still steps and its pages add up."""
    age_s = time.time() - engine.heartbeat_s
    return {
        "healthy": age_s < STALE_HEARTBEAT_S and engine.integrity_error is None,
        "heartbeat_age_s": round(age_s, 3),
        "integrity_error": engine.integrity_error,
    }
