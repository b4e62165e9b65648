"""A model's state as tables for a terminal. Knows values, not where they come from."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from folio_client.types import SessionInfo, Stats

_FULL = 0.9


def stats_table(stats: Stats) -> Table:
    """Requests, sessions, pages and memory, one row each."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    if stats.num_running_requests is not None:
        table.add_row("requests", f"{stats.num_running_requests} running", f"{stats.num_waiting_requests} waiting")
    table.add_row("sessions", f"{stats.num_sessions:,}")
    for kind, pages in stats.pages.items():
        states = f"{pages.held:,} held, {pages.cached:,} cached, {pages.loading:,} loading"
        table.add_row(f"{kind} pages", f"{pages.in_use:,} of {pages.total:,}", states)
    table.add_row("memory", _memory(stats), f"{stats.memory_usage_bytes / (stats.memory_limit_bytes or 1):.1%}")
    stored = f"{stats.bytes_per_token:,.0f} bytes a token, fp16 {stats.bytes_per_token_fp16:,.0f}"
    table.add_row("codec", stats.codec, stored)
    table.add_row("evicted pages", f"{sum(stats.num_evictions.values()):,}", _reasons(stats))
    if stats.num_preemptions is not None:
        table.add_row("preemptions", f"{stats.num_preemptions:,}")
    return table


def sessions_table(sessions: Sequence[SessionInfo]) -> Table | Text:
    """A row for each session, the longest first."""
    if not sessions:
        return Text("no sessions", style="dim")
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("session", style="bold")
    for name in ("tokens", "resident", "turns"):
        table.add_column(name, justify="right")
    table.add_column("")
    for info in sorted(sessions, key=lambda info: -info.num_tokens):
        counts = (info.num_tokens, info.num_resident_tokens, info.num_turns)
        cells = ("" if count is None else f"{count:,}" for count in counts)
        table.add_row(Text(info.session_id), *cells, Text("in use", style="green") if info.is_idle is False else "")
    return table


def _memory(stats: Stats) -> Text:
    used, limit = stats.memory_usage_bytes, stats.memory_limit_bytes
    style = "bold red" if used > _FULL * limit else ""
    return Text(f"{used / 2**20:,.1f} of {limit / 2**20:,.0f} MiB", style=style)


def _reasons(stats: Stats) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in stats.num_evictions.items())
