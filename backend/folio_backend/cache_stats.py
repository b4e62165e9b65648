"""What `op: stats` says of a cache, whichever kind of model it belongs to.

Knows a snapshot's numbers and a page's bytes; nothing of who asked.
"""

from __future__ import annotations

from folio_backend.metrics import EngineSnapshot
from folio_kernels.layout import PAGE_SIZE
from folio_kernels.mixed_pool import AnyLayout

MIXED = "mixed"
"""In place of a codec's name, where layers differ."""


def cache_stats(state: EngineSnapshot, layout: AnyLayout) -> dict[str, object]:
    """Pages by kind and state, what was evicted, and bytes per cached token against raw pages and fp16."""
    pages: dict[str, dict[str, int]] = {}
    for (kind, page_state), count in state.num_pages.items():
        pages.setdefault(kind, {})[page_state] = count
    return {
        "sessions": state.num_sessions,
        "pages": pages,
        "evictions": dict(state.num_evictions),
        "recompilations": state.num_recompilations,
        "memory_usage_bytes": state.memory_usage_bytes,
        "memory_limit_bytes": state.memory_limit_bytes,
        "page_size": PAGE_SIZE,
        "bytes_per_token": layout.sealed_page_bytes / PAGE_SIZE,
        "bytes_per_token_raw": layout.raw_page_bytes / PAGE_SIZE,
        "bytes_per_token_fp16": layout.fp16_page_bytes / PAGE_SIZE,
        "codec": layout.codecs[0].name if len(set(layout.codecs)) == 1 else MIXED,
        "layers_by_codec": _layers_by_codec(layout),
    }


def _layers_by_codec(layout: AnyLayout) -> dict[str, list[int]]:
    layers: dict[str, list[int]] = {}
    for layer, codec in enumerate(layout.codecs):
        layers.setdefault(codec.name, []).append(layer)
    return layers
