"""Decode attention over int4 pages against torch's own over contiguous float32, one layer on a CPU.

It runs in a process of its own, for the reason that `transformers_baseline` gives.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention

from folio_kernels.codecs import codec_named
from folio_kernels.layout import PAGE_SIZE, PageLayout
from folio_kernels.operations import operations_for
from folio_kernels.pool import PagePool
from tests.kernels.paged_histories import random_batch

BATCH = 8
CONTEXTS = (2_000, 8_000)
NUM_LAUNCHES = 9
"""Of each kind in one measurement, in turns; their medians are compared."""


@dataclass(frozen=True)
class HeadShape:
    """A model's attention heads."""

    num_kv_heads: int
    group: int
    head_dim: int


SHAPES = {"smollm2": HeadShape(3, 3, 64), "llama3_8b": HeadShape(8, 4, 128)}


def sdpa_over_int4(shape: HeadShape, context: int) -> float:
    """How many times as long torch's attention takes."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_sdpa_over_int4, shape, context).result()


@torch.inference_mode()
def _sdpa_over_int4(shape: HeadShape, context: int) -> float:
    query = torch.randn((BATCH, shape.num_kv_heads * shape.group, 1, shape.head_dim))
    keys, values = torch.randn((2, BATCH, shape.num_kv_heads, context, shape.head_dim)).unbind()
    pool = _pool(shape, num_pages=BATCH * (context // PAGE_SIZE + 2))
    batch, operations = random_batch(pool, [context] * BATCH, [1] * BATCH), operations_for(pool, compiled=True)
    rows, scale = query.squeeze(2), shape.head_dim**-0.5

    def paged() -> torch.Tensor:
        return operations.attend(0, rows, batch, scale)

    def contiguous() -> torch.Tensor:
        return scaled_dot_product_attention(query, keys, values, enable_gqa=True)

    times_s: tuple[list[float], list[float]] = ([], [])
    for _ in range(NUM_LAUNCHES):
        for function, measured_s in zip((paged, contiguous), times_s, strict=True):
            function()  # brings back what the other one drove out of the caches that hold more than a step's pages
            measured_s.append(_seconds(function))
    return statistics.median(times_s[1]) / statistics.median(times_s[0])


def _pool(shape: HeadShape, num_pages: int) -> PagePool:
    """Pages of random codes; what scales and zeros are does not change how long anything takes."""
    layout = PageLayout(1, shape.num_kv_heads, shape.head_dim, codec_named("int4"), torch.float16)
    pool = PagePool(layout, num_pages, num_pages)
    for name in layout.fields:
        field = pool.sealed_field(name)
        field.copy_(torch.randint(256, field.shape) if name.endswith("codes") else torch.full(field.shape, 0.01))
    return pool


def _seconds(function: Callable[[], torch.Tensor]) -> float:
    started_s = time.perf_counter()
    function()
    return time.perf_counter() - started_s
