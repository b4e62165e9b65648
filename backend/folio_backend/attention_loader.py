"""Builds what an attention model runs on from its settings: the pool, the operations on it, the shape of a step.

Knows what refuses to load. Does not know requests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch

from folio_backend.attention_request import StepShape
from folio_backend.attention_sessions import AttentionSessions
from folio_backend.cache.eviction import STRATEGIES
from folio_backend.cache.kv_cache import KVCache
from folio_backend.cache.page_store import PageCount, PageStore
from folio_backend.config import Settings
from folio_backend.errors import ConfigurationError
from folio_backend.pool_size import num_pages_within
from folio_kernels.codecs import codec_named
from folio_kernels.layout import HEAD_DIMS, PageLayout
from folio_kernels.operations import Operations, operations_for
from folio_kernels.pool import PagePool

Device = Literal["cpu", "cuda"]

MAX_STEP_TOKENS = 2048
"""Tokens of one step at most: they lie in raw pages until they are sealed, and longer histories come in pieces."""

NUM_BATCHED_STEPS = 16
"""Steps that run together with room for each; of a larger batch some may have to wait for the next launch."""

DTYPES = {"float32": torch.float32, "float16": torch.float16}
"""What tensors on the wire can hold and NumPy can read."""

FREE_MEMORY_SHARE = 0.8
"""Of a GPU's free memory, where no limit is set."""


def step_shape(settings: Settings, device: Device) -> StepShape:
    """What the tensors of a step look like.

    Raises:
        ConfigurationError: a dtype or head_dim that cannot be served.
    """
    assert settings.num_heads is not None
    assert settings.num_kv_heads is not None
    assert settings.head_dim is not None
    dtype = settings.resolved_dtype(device, "float32")
    if dtype not in DTYPES:
        allowed = ", ".join(DTYPES)
        raise ConfigurationError(f"dtype is {dtype}, which tensors cannot hold; allowed: {allowed}.")
    if settings.head_dim not in HEAD_DIMS:
        allowed = ", ".join(map(str, HEAD_DIMS))
        raise ConfigurationError(f"head_dim is {settings.head_dim}; allowed: {allowed}.")
    return StepShape(
        num_heads=settings.num_heads,
        num_kv_heads=settings.num_kv_heads,
        head_dim=settings.head_dim,
        dtype=DTYPES[dtype],
        cache_dtype=getattr(torch, settings.resolved_cache_dtype(dtype)),
        max_step_tokens=min(MAX_STEP_TOKENS, settings.max_history_tokens),
    )


def load_operations(
    settings: Settings, shape: StepShape, device: Device, progress: Callable[[str], None]
) -> Operations:
    """The operations on a pool as large as the memory limit allows, warmed up.

    Raises:
        ConfigurationError: the limit is too small.
    """
    layout = PageLayout(1, shape.num_kv_heads, shape.head_dim, codec_named(settings.codec), shape.cache_dtype)
    limit_bytes = settings.memory_limit_bytes(device)
    if limit_bytes is None:
        limit_bytes = int(FREE_MEMORY_SHARE * torch.cuda.mem_get_info()[0])
    count = num_pages_within(
        layout,
        limit_bytes,
        max_running=NUM_BATCHED_STEPS,
        max_step_tokens=shape.max_step_tokens,
        max_tokens=settings.max_tokens,
    )
    operations = operations_for(PagePool(layout, count.raw, count.sealed, device), compiled=settings.compile)
    progress(f"compiling attention for codec {layout.codec.name}" if settings.compile else "compilation is off")
    operations.warm_up(shape.num_heads)
    return operations


def load_sessions(settings: Settings, operations: Operations, progress: Callable[[str], None]) -> AttentionSessions:
    """The sessions, none yet, over all pages of the operations' pool."""
    num_pages = PageCount(operations.pool.num_raw_pages, operations.pool.num_sealed_pages)
    cache = KVCache(PageStore(num_pages, STRATEGIES[settings.strategy]()), settings.sink_pages)
    sessions = AttentionSessions(cache, settings.max_sessions, settings.max_history_tokens)
    if sessions.max_history_tokens < settings.max_history_tokens:
        progress(
            f"histories are limited to {sessions.max_history_tokens} tokens, all that the pool holds, "
            f"below max_history_tokens of {settings.max_history_tokens}"
        )
    return sessions
