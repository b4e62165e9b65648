"""The dashboard of the cache: what it saves, what it holds, what it gives up."""

from __future__ import annotations

from folio_dashboards.board import Board, Panel, Query, Row
from folio_dashboards.promql import quantiles, rate, recorded, share, total

_SAVED = Row(
    "What it saves",
    (
        Panel(
            "Requests that hit",
            "Share of requests that found some of their prompt, over 10 minutes.",
            "percentunit",
            (Query(recorded("model:kv_cache_hits:ratio_rate10m"), "{{model}}"),),
        ),
        Panel(
            "Hits and misses",
            "Requests that found some of their prompt (hit), or none of it (miss).",
            "reqps",
            (Query(rate("kv_cache_requests_total", "status"), "{{model}} {{status}}"),),
        ),
        Panel(
            "Prompt tokens not computed again",
            "Share of prompt tokens whose keys and values were in the cache.",
            "percentunit",
            (Query(share(rate("folio_cached_tokens_total"), rate("folio_prompt_tokens_total")), "{{model}}"),),
        ),
        Panel(
            "Time to make a history ready",
            "Lookup and load, without computing.",
            "s",
            quantiles("kv_cache_latency_seconds"),
        ),
        Panel(
            "Bytes, uncompressed and stored",
            "What the tokens in the cache would take uncompressed and unshared (logical), and what they take.",
            "bytes",
            (
                Query(total("folio_logical_bytes"), "{{model}} logical"),
                Query(total("folio_stored_bytes"), "{{model}} stored"),
            ),
        ),
        Panel(
            "Stored over uncompressed",
            "The codec's part of it is about 0.5 with int8 and 0.3 with int4.",
            "percentunit",
            (Query(share(total("folio_stored_bytes"), total("folio_logical_bytes")), "{{model}}"),),
        ),
    ),
)

_HELD = Row(
    "What it holds and gives up",
    (
        Panel(
            "Memory",
            "Memory of the pages in use, and the limit.",
            "bytes",
            (
                Query(total("kv_cache_memory_usage_bytes"), "{{model}} in use"),
                Query(total("kv_cache_memory_limit_bytes"), "{{model}} limit"),
            ),
        ),
        Panel(
            "Raw pages",
            "Open pages and those at a sequence's start, by state.",
            "short",
            (Query(total("folio_pages", "state", where=('kind="raw"',)), "{{model}} {{state}}"),),
            is_stacked=True,
        ),
        Panel(
            "Sealed pages",
            "Compressed pages, by state.",
            "short",
            (Query(total("folio_pages", "state", where=('kind="sealed"',)), "{{model}} {{state}}"),),
            is_stacked=True,
        ),
        Panel(
            "Pages to be had",
            "Share of pages, of the scarcer kind, that nobody holds; the rest belongs to requests and sessions.",
            "percentunit",
            (
                Query(
                    'instance_model:folio_available_pages:ratio{instance=~"$instance", model=~"$model"}',
                    "{{instance}} {{model}}",
                ),
            ),
        ),
        Panel(
            "Evictions",
            "Pages evicted a second: cached, or the open page of an idle session.",
            "short",
            (Query(rate("folio_evictions_total", "reason"), "{{model}} {{reason}}"),),
        ),
        Panel(
            "Sessions",
            "Sessions that are kept.",
            "short",
            (Query(total("folio_sessions"), "{{model}}"),),
        ),
    ),
)

CACHE = Board("folio-cache", "Folio cache", "What the cache saves, holds and gives up.", (_SAVED, _HELD))
