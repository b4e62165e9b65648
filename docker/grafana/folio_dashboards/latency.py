"""The dashboard of time: what a user waits for, and where the time goes."""

from __future__ import annotations

from folio_dashboards.board import Board, Panel, Query, Row
from folio_dashboards.promql import mean, quantile, quantiles

_WAITED = Row(
    "What a user waits for",
    (
        Panel(
            "Time to first token",
            "From a request's arrival; the bound is the objective's.",
            "s",
            (
                *quantiles("folio_time_to_first_token_seconds"),
                Query("folio:objective_first_token_seconds", "bound"),
            ),
        ),
        Panel(
            "Time between tokens",
            "Each request's mean.",
            "s",
            quantiles("folio_inter_token_seconds"),
        ),
        Panel(
            "Whole request",
            "From arrival to the end.",
            "s",
            quantiles("folio_end_to_end_seconds"),
        ),
    ),
)

_PHASES = ("queue", "prefill", "decode", "send")
_SPENT = Row(
    "Where the time goes",
    (
        Panel(
            "Mean request",
            "Queue: until it first ran. Prefill: until its first token. Decode: until its last. "
            "Send: until the server had the last answer.",
            "s",
            tuple(Query(mean(f"folio_{phase}_seconds"), f"{{{{model}}}} {phase}") for phase in _PHASES),
            is_stacked=True,
        ),
        Panel("Queue", "Time before a request first ran.", "s", quantiles("folio_queue_seconds")),
        Panel("Prefill", "Time from then to its first token.", "s", quantiles("folio_prefill_seconds")),
        Panel("Decode", "Time from then to its last token.", "s", quantiles("folio_decode_seconds")),
        Panel("Send", "Time from then until the server had its last answer.", "s", quantiles("folio_send_seconds")),
        Panel(
            "Tokens of a request",
            "95th percentile of prompt tokens, history included, and of generated tokens.",
            "short",
            (
                Query(quantile(0.95, "folio_request_prompt_tokens"), "{{model}} prompt"),
                Query(quantile(0.95, "folio_request_generated_tokens"), "{{model}} generated"),
            ),
        ),
    ),
)

LATENCY = Board(
    "folio-latency",
    "Folio latency",
    "What a user waits for, and where the time goes.",
    (_WAITED, _SPENT),
)
