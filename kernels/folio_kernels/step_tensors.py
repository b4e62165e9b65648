"""One step's batch as the GPU's kernels read it: the same numbers, on the device, copied once a step.

Knows what the kernels ask of a batch that the CPU does not: which stored pages are raw, as a count.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from folio_kernels.layout import PAGE_SIZE
from folio_kernels.pool import RAW, AttentionBatch


@dataclass(frozen=True)
class StepTensors:
    """The sequences of one step.

    Attributes:
        query_starts, lengths, page_tables, open_pages: as `AttentionBatch` has them, on the pool's device; tables have
            at least one column.
        num_raw_pages: `[sequences]` int32: so many of each table's first pages are raw, the others are sealed.
    """

    query_starts: torch.Tensor
    lengths: torch.Tensor
    page_tables: torch.Tensor
    open_pages: torch.Tensor
    num_raw_pages: torch.Tensor


def step_tensors(batch: AttentionBatch, device: torch.device) -> StepTensors:
    """The batch on a device.

    Raises:
        ValueError: a sequence has a raw page behind a sealed one, which the kernels would read as sealed.
    """
    num_full = (batch.lengths // PAGE_SIZE).unsqueeze(1)
    index = torch.arange(batch.page_kinds.shape[1], device=batch.page_kinds.device)
    is_raw = (batch.page_kinds == RAW) & (index < num_full)
    num_raw = is_raw.sum(1, dtype=torch.int32)
    is_behind = is_raw & (index >= num_raw.unsqueeze(1))
    if is_behind.any():
        sequence, page = is_behind.nonzero()[0].tolist()
        raise ValueError(f"page {page} of sequence {sequence} is raw behind a sealed one; raw pages come first")
    return StepTensors(
        query_starts=_moved(batch.query_starts, device),
        lengths=_moved(batch.lengths, device),
        page_tables=_with_a_column(_moved(batch.page_tables, device)),
        open_pages=_with_a_column(_moved(batch.open_pages, device)),
        num_raw_pages=_moved(num_raw, device),
    )


def _moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    return tensor.to(device, torch.int32)


def _with_a_column(matrix: torch.Tensor) -> torch.Tensor:
    """The matrix, or one column of zeros in place of none: a kernel may be handed no empty memory."""
    return matrix if matrix.shape[1] else matrix.new_zeros((len(matrix), 1))
