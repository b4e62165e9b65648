"""Takes the measurements: decode steps, baselines, sealing, and prefill of a chunk, one case at a time.

Each case's memory is given back before the next one: the large ones fill a GPU.
"""

from __future__ import annotations

import dataclasses

import torch

from folio_kernels.layout import PAGE_SIZE
from folio_kernels.operations import ALL_LAYERS, operations_for

from .baselines import BASELINES, UnavailableError, checked, random_cache
from .cases import HeadShape, Workload, decode_bytes, uncompressed_bytes
from .histories import build_history, decode_history, served_pool
from .results import Baseline, Decode, Prefill, Sealing
from .timing import GraphTimer

NUM_LAYERS = 32
"""Layers that one launch seals after a decode step."""

PAGES_SEALED = 1024
"""Pages of one layer that one launch seals when its bandwidth is measured."""

CUDA = torch.device("cuda")


def measure_decode(timer: GraphTimer, shape: HeadShape, workload: Workload, codec: str) -> Decode:
    """One layer's attention of every sequence's newest token."""
    history = decode_history(shape, workload, codec, CUDA)
    scale = shape.head_dim**-0.5
    seconds = timer.seconds(lambda: history.operations.attend(0, history.query, history.batch, scale))
    return Decode(shape.name, workload.name, codec, seconds, decode_bytes(shape, workload, codec))


def measure_baselines(timer: GraphTimer, shape: HeadShape, workload: Workload) -> list[Baseline]:
    """Every bf16 kernel that runs here, and why the others do not."""
    cache = random_cache(shape, workload, CUDA)
    not_run = Baseline(shape.name, workload.name, "", uncompressed_bytes(shape, workload), None)
    measured = []
    for name, make in BASELINES.items():
        try:
            seconds = timer.seconds(checked(make, cache))
        except UnavailableError as error:
            measured.append(dataclasses.replace(not_run, name=name, reason=str(error)))
        else:
            measured.append(dataclasses.replace(not_run, name=name, seconds=seconds))
    return measured


def measure_sealing(timer: GraphTimer, shape: HeadShape, workload: Workload, decode: Decode) -> Sealing:
    """Bandwidth over many pages of one layer, and the share of decode steps over one page of every layer.

    Each sequence fills a page in `page_size` steps, so a step seals a batch's page_size-th part of pages. Only the
    attention counts as the step: the model's matrices would make the share smaller.
    """
    bandwidth_s = _seal_seconds(timer, shape, decode.codec, num_layers=1, num_pages=PAGES_SEALED)
    page_s = _seal_seconds(timer, shape, decode.codec, num_layers=NUM_LAYERS, num_pages=1)
    layout = shape.layout(decode.codec)
    return Sealing(
        shape.name,
        workload.name,
        decode.codec,
        bandwidth_s,
        PAGES_SEALED * (layout.raw_page_bytes + layout.sealed_page_bytes),
        page_s * len(workload.lengths) / PAGE_SIZE / (NUM_LAYERS * decode.seconds),
    )


def _seal_seconds(timer: GraphTimer, shape: HeadShape, codec: str, *, num_layers: int, num_pages: int) -> float:
    pool = served_pool(shape.layout(codec, num_layers), num_pages, num_pages, CUDA)
    pool.raw.normal_()
    operations = operations_for(pool, compiled=True)
    raw, sealed = (torch.randperm(num_pages, device=CUDA) for _ in range(2))
    return timer.seconds(lambda: operations.seal(ALL_LAYERS, raw, sealed))


def measure_prefill(timer: GraphTimer, shape: HeadShape, num_before: int, num_new: int, codec: str) -> Prefill:
    """What one layer does with a chunk: append it, seal its full pages, attend."""
    history = build_history(shape, (num_before + num_new,), [num_new], codec, CUDA)
    operations, batch, layer = history.operations, history.batch, slice(0, 1)

    def work() -> None:
        operations.append(0, history.key, history.value, batch.slots)
        operations.seal(layer, batch.seal_raw, batch.seal_sealed)
        operations.attend(0, history.query, batch, shape.head_dim**-0.5)

    return Prefill(shape.name, num_before, num_new, codec, timer.seconds(work))
