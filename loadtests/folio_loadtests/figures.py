"""How figures are written for people: the same in the terminal and on the page."""

from __future__ import annotations

from typing import Any, TypeAlias

Row: TypeAlias = tuple[str, ...]

NOTHING = "–"


def seconds(value: float | None) -> str:
    """Seconds as milliseconds below one second."""
    if value is None:
        return NOTHING
    return f"{value * 1000:.1f} ms" if abs(value) < 1 else f"{value:.2f} s"


def share(value: float | None) -> str:
    """A share as a percentage."""
    return NOTHING if value is None else f"{value:.1%}"


def percentiles(distribution: dict[str, Any]) -> Row:
    """p50, p95 and p99."""
    return tuple(seconds(distribution[name]) for name in ("p50", "p95", "p99"))


def kind_rows(document: dict[str, Any]) -> list[Row]:
    """A row for each kind of request: see `KIND_COLUMNS`."""
    return [
        (
            kind["kind"].replace("_", " "),
            str(kind["num_requests"]),
            f"{kind['per_s'] or 0.0:.2f}",
            *(str(kind[outcome]) for outcome in ("refused", "failed", "wrong")),
            *percentiles(kind["first_token"]),
            *percentiles(kind["latency"]),
        )
        for kind in document["kinds"]
    ]


KIND_COLUMNS = (
    *("requests", "asked", "ok/s", "refused", "failed", "wrong"),
    *("1st token p50", "p95", "p99", "whole p50", "p95", "p99"),
)


def cohort_rows(document: dict[str, Any]) -> list[Row]:
    """A row for each cohort: see `COHORT_COLUMNS`."""
    return [
        (
            cohort["cohort"],
            str(cohort["num_requests"]) if cohort["num_requests"] else _why_none(cohort["cohort"]),
            share(cohort["cached_share"]),
            *percentiles(cohort["first_token"]),
            seconds(cohort["inter_token"]["p50"]),
        )
        for cohort in document["cohorts"]
    ]


COHORT_COLUMNS = ("generations by history", "answered", "cached", "1st token p50", "p95", "p99", "per token p50")


def objective_rows(document: dict[str, Any]) -> list[Row]:
    """A row for each objective: see `OBJECTIVE_COLUMNS`."""
    rows: list[Row] = []
    for objective in document["objectives"]:
        shown = share if objective["name"] in {"error_rate", "goodput"} else seconds
        bound = ("≥ " if objective["name"] == "goodput" else "≤ ") + shown(objective["bound"])
        met = NOTHING if objective["reached"] is None else "met" if objective["is_met"] else "missed"
        rows.append((_words(objective["name"]), shown(objective["reached"]), bound, met))
    return rows


OBJECTIVE_COLUMNS = ("objective", "reached", "bound", "")


def latency_rows(document: dict[str, Any]) -> list[Row]:
    """Both ways to count each time: see `LATENCY_COLUMNS`."""
    rows = {
        "first token, from the intended start": "intended_first_token",
        "first token, from sending": "sent_first_token",
        "whole answer, from the intended start": "intended",
        "whole answer, from sending": "sent",
    }
    return [(title, *percentiles(document["latency"][name])) for title, name in rows.items()]


LATENCY_COLUMNS = ("counted", "p50", "p95", "p99")


def server_rows(document: dict[str, Any]) -> list[Row]:
    """The client's figures beside the server's: see `SERVER_COLUMNS`."""
    server = document["server"]
    if server is None:
        return []
    rows = [
        (
            f"{entry['kind']} tokens",
            f"{entry['client']:,}",
            f"{entry['server']:,}",
            f"{entry['client'] - entry['server']:,}",
        )
        for entry in server["tokens"]
    ]
    first_token = (server["client_mean_first_token_s"], server["server_mean_first_token_s"], server["difference_s"])
    p95 = (server["client_p95_first_token_s"], server["server_p95_first_token_bound_s"])
    bound = NOTHING if p95[1] is None else f"≤ {seconds(p95[1])}"
    return [
        *rows,
        ("time to first token, mean", *map(seconds, first_token)),
        ("time to first token, p95", seconds(p95[0]), bound, NOTHING),
    ]


SERVER_COLUMNS = ("", "client", "server", "difference")


def warm_up_line(document: dict[str, Any]) -> str:
    """What was taken out of the measurement."""
    warm_up = document["warm_up"]
    cold, later = warm_up["cold_start_first_token_s"], warm_up["later_first_token"]["p50"]
    line = f"{warm_up['num_requests']} requests, ended by {warm_up['ended_because'] or 'the end of the run'}"
    return (
        line if cold is None else f"{line}; first token of the first {seconds(cold)}, median after it {seconds(later)}"
    )


def checks_line(document: dict[str, Any]) -> str:
    """What was compared."""
    checks = document["checks"]
    if not checks["num_compared"]:
        return "no resumed session was compared with its reference"
    where = ", ".join(f"{count} {cohort}" for cohort, count in checks["cohorts"].items())
    ties = f"; {checks['num_ties']} ended early at a tie" if checks["num_ties"] else ""
    near = f"; {checks['num_near_ties']} at a choice within the rule's bound" if checks["num_near_ties"] else ""
    counts = f"{checks['num_equal']} of {checks['num_compared']} resumed sessions equal their reference ({where})"
    return f"{counts}, {checks['num_tokens']} tokens compared{ties}{near}"


def generator_line(document: dict[str, Any]) -> str:
    """How busy the generator was."""
    return "; ".join(
        f"{load['process']}: {seconds(load['late_p99_s'])} late at p99, {share(load['cpu_share'])} of a core"
        for load in document["generator"]
    )


def _why_none(cohort: str) -> str:
    return {
        "restored after a restart": "no disk tier yet",
        "evicted, recomputed": "none: nothing had to go",
    }.get(cohort, "0")


def _words(name: str) -> str:
    return name.removesuffix("_s").replace("p95_", "p95 ").replace("_", " ")
