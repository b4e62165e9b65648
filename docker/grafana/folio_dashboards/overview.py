"""The dashboard to look at first: are the promises kept, what is asked of the servers, and what fails."""

from __future__ import annotations

from folio_dashboards.board import Board, Panel, Query, Row
from folio_dashboards.promql import rate, recorded, series, total

_WINDOWS = ("5m", "1h", "6h", "3d")


def _burn_rates(ratio: str, objective: str) -> tuple[Query, ...]:
    budget = f"(1 - scalar({objective}))"
    return tuple(
        Query(f"{recorded(f'{ratio}_rate{window}')} / {budget}", f"{{{{model}}}} over {window}") for window in _WINDOWS
    )


# Not only the chosen servers' and models': what fires is to be seen whatever is chosen.
_ALERTS = Row(
    "Alerts",
    (
        Panel(
            "Alerts that fire",
            "Of all servers and models; docker/RUNBOOK.md says of each what to do.",
            "short",
            (
                Query(
                    'sum by (alertname, model, instance) (ALERTS{alertname=~"Folio.+", alertstate="firing"})',
                    "{{alertname}} {{model}} {{instance}}",
                ),
            ),
            width=24,
            is_stacked=True,
        ),
    ),
)

_OBJECTIVES = Row(
    "Objectives",
    (
        Panel(
            "Requests answered, 3 days",
            "Share of requests that did not fail through a fault of ours.",
            "percentunit",
            (Query(f"1 - {recorded('model:folio_request_errors:ratio_rate3d')}", "{{model}}"),),
            kind="number",
            width=6,
        ),
        Panel(
            "First tokens in time, 3 days",
            "Share of first tokens that came within the bound.",
            "percentunit",
            (Query(f"1 - {recorded('model:folio_late_first_tokens:ratio_rate3d')}", "{{model}}"),),
            kind="number",
            width=6,
        ),
        Panel(
            "Time to first token, p95",
            "Over 5 minutes; behind it the bound.",
            "s",
            (
                Query(recorded("model:folio_time_to_first_token_seconds:p95_5m"), "{{model}}"),
                Query("folio:objective_first_token_seconds", "bound"),
            ),
            kind="number",
            width=6,
        ),
        Panel(
            "Servers that answer",
            "Servers whose metrics can be read, and all that are watched.",
            "short",
            (
                Query('sum(up{job="folio", instance=~"$instance"})', "answer"),
                Query('count(up{job="folio", instance=~"$instance"})', "watched"),
            ),
            kind="number",
            width=6,
        ),
        Panel(
            "Burn rate, availability",
            "Pace at which the error budget goes; at 1 it lasts exactly its month, above 14.4 somebody is paged.",
            "short",
            _burn_rates("model:folio_request_errors:ratio", "folio:objective_availability"),
            width=12,
        ),
        Panel(
            "Burn rate, first token in time",
            "Pace at which the budget of late first tokens goes.",
            "short",
            _burn_rates("model:folio_late_first_tokens:ratio", "folio:objective_first_token"),
            width=12,
        ),
    ),
)

_TRAFFIC = Row(
    "Traffic",
    (
        Panel(
            "Requests",
            "Requests answered by the server, admin operations and refusals included.",
            "reqps",
            (Query(rate("nv_inference_request_success"), "{{model}}"),),
        ),
        Panel(
            "Tokens",
            "Prompt tokens, those of them that were not computed again, and generated tokens, of finished requests.",
            "short",
            (
                Query(rate("folio_prompt_tokens_total"), "{{model}} prompt"),
                Query(rate("folio_cached_tokens_total"), "{{model}} cached"),
                Query(rate("folio_generated_tokens_total"), "{{model}} generated"),
            ),
        ),
        Panel(
            "Running and waiting",
            "Requests in the batch and in the queue.",
            "short",
            (
                Query(total("folio_requests_running"), "{{model}} running"),
                Query(total("folio_requests_waiting"), "{{model}} waiting"),
            ),
        ),
    ),
)

_FAILURES = Row(
    "Failures",
    (
        Panel(
            "Share of requests that fail",
            "Over 5 minutes, through no fault of the client.",
            "percentunit",
            (Query(recorded("model:folio_request_errors:ratio_rate5m"), "{{model}}"),),
        ),
        Panel(
            "Refused",
            "Requests answered with an error before they were admitted, and failed attention steps, by reason.",
            "reqps",
            (Query(rate("folio_rejections_total", "reason"), "{{model}} {{reason}}"),),
        ),
        Panel(
            "Ended",
            "Requests that ended after admission, by reason.",
            "reqps",
            (Query(rate("folio_requests_finished_total", "finish_reason"), "{{model}} {{finish_reason}}"),),
        ),
        Panel(
            "Never answered",
            "Requests that the server could not hand to Folio, or that it gave up, by reason.",
            "reqps",
            (Query(rate("nv_inference_request_failure", "reason"), "{{model}} {{reason}}"),),
        ),
        Panel(
            "Preemptions",
            "Times a second that a running request gave up its pages.",
            "short",
            (Query(rate("folio_preemptions_total"), "{{model}}"),),
        ),
        Panel(
            "Age of the last heartbeat",
            "Seconds since each engine last showed life.",
            "s",
            (Query(f"time() - {series('folio_engine_heartbeat_timestamp_seconds')}", "{{instance}} {{model}}"),),
        ),
    ),
)

OVERVIEW = Board(
    "folio-overview",
    "Folio overview",
    "Whether the promises are kept, what is asked of the servers, and what fails.",
    (_ALERTS, _OBJECTIVES, _TRAFFIC, _FAILURES),
)
