"""Which metrics there are to show.

Knows Folio's own metrics, those that every server publishes, and how a metrics page lists them.
"""

from __future__ import annotations

import re

from folio_backend.metric_definitions import METRICS

_DECLARATION = re.compile(r"^# TYPE (\S+) ", re.MULTILINE)

# What a server publishes on any machine, with a model in it; on a machine with a GPU there is more.
_SERVER_METRICS = (
    "nv_cpu_memory_total_bytes",
    "nv_cpu_memory_used_bytes",
    "nv_cpu_utilization",
    "nv_inference_count",
    "nv_inference_exec_count",
    "nv_inference_pending_request_count",
    "nv_inference_request_failure",
    "nv_inference_request_success",
    "nv_pinned_memory_pool_total_bytes",
    "nv_pinned_memory_pool_used_bytes",
)


def everywhere() -> frozenset[str]:
    """Metrics of every server, by their names; a histogram's without suffix."""
    return frozenset(definition.name for definition in METRICS) | frozenset(_SERVER_METRICS)


def on_page(page: str) -> frozenset[str]:
    """Metrics of the server whose metrics page this is, named as in `everywhere`."""
    return frozenset(_DECLARATION.findall(page))
