"""The dashboard of machines: processor, memory and GPU as the server sees them."""

from __future__ import annotations

from folio_dashboards.board import Board, Panel, Query, Row
from folio_dashboards.promql import rate, series, share

_ON_INSTANCE = '{instance=~"$instance"}'


def _machine(metric: str) -> str:
    """A metric of the whole server, which belongs to no model."""
    return f"{metric}{_ON_INSTANCE}"


_HOST = Row(
    "Host",
    (
        Panel(
            "Processor",
            "Share of all cores in use.",
            "percentunit",
            (Query(_machine("nv_cpu_utilization"), "{{instance}}"),),
        ),
        Panel(
            "Memory",
            "Memory in use, by everything on the machine, and all there is.",
            "bytes",
            (
                Query(_machine("nv_cpu_memory_used_bytes"), "{{instance}} in use"),
                Query(_machine("nv_cpu_memory_total_bytes"), "{{instance}} all"),
            ),
        ),
        Panel(
            "Pinned memory",
            "The server's pool of pinned memory.",
            "bytes",
            (
                Query(_machine("nv_pinned_memory_pool_used_bytes"), "{{instance}} in use"),
                Query(_machine("nv_pinned_memory_pool_total_bytes"), "{{instance}} all"),
            ),
        ),
    ),
)

_SERVER = Row(
    "Server",
    (
        Panel(
            "Requests not handed over yet",
            "Requests that wait in the server itself; Folio's own queue is in the overview.",
            "short",
            (Query(series("nv_inference_pending_request_count"), "{{instance}} {{model}}"),),
        ),
        Panel(
            "Batch size",
            "Inferences in one call of a model.",
            "short",
            (Query(share(rate("nv_inference_count"), rate("nv_inference_exec_count")), "{{model}}"),),
        ),
        Panel(
            "Compilations while serving",
            "There should be none.",
            "short",
            (Query(rate("folio_recompilations_total"), "{{model}}"),),
        ),
    ),
)

_GPU = Row(
    "GPU",
    (
        Panel(
            "GPU in use",
            "Share of the time that a kernel ran.",
            "percentunit",
            (Query(_machine("nv_gpu_utilization"), "{{instance}} {{gpu_uuid}}"),),
        ),
        Panel(
            "GPU memory",
            "Memory in use, and all there is.",
            "bytes",
            (
                Query(_machine("nv_gpu_memory_used_bytes"), "{{instance}} {{gpu_uuid}} in use"),
                Query(_machine("nv_gpu_memory_total_bytes"), "{{instance}} {{gpu_uuid}} all"),
            ),
        ),
        Panel(
            "GPU power",
            "Power drawn, and the limit.",
            "watt",
            (
                Query(_machine("nv_gpu_power_usage"), "{{instance}} {{gpu_uuid}} drawn"),
                Query(_machine("nv_gpu_power_limit"), "{{instance}} {{gpu_uuid}} limit"),
            ),
        ),
    ),
    is_optional=True,
)

HOST = Board("folio-host", "Folio host", "Processor, memory and GPU as the server sees them.", (_HOST, _SERVER, _GPU))
