"""The operations on a GPU's pool: the Triton kernels, and one copy of a step's batch to the device.

Knows which kernels a step needs. What they compute is theirs.
"""

from __future__ import annotations

from functools import cached_property

import torch

from folio_kernels.append import append
from folio_kernels.decode_attention import decode_attention
from folio_kernels.pool import RAW, SEALED, AttentionBatch, PagePool, warm_up_batch
from folio_kernels.prefill_attention import prefill_attention
from folio_kernels.seal import seal
from folio_kernels.step_tensors import StepTensors, step_tensors


class TritonOperations:
    """See `operations.Operations`.

    A step's first operation on a batch copies it to the device; the others find it there.

    Args:
        pool: the pages, on a GPU (or on the CPU, in the Triton language's interpreter).
    """

    def __init__(self, pool: PagePool) -> None:
        self.pool = pool
        self._copied: tuple[AttentionBatch, StepTensors] | None = None

    def append(self, layer: int, key: torch.Tensor, value: torch.Tensor, slots: torch.Tensor) -> None:
        """See `Operations.append`."""
        append(self.pool, layer, _with_dense_dims(key), _with_dense_dims(value), self._moved(slots))

    def seal(self, layers: slice, raw_pages: torch.Tensor, sealed_pages: torch.Tensor) -> None:
        """See `Operations.seal`."""
        seal(self.pool, layers, self._moved(raw_pages), self._moved(sealed_pages))

    def attend(self, layer: int, query: torch.Tensor, batch: AttentionBatch, scale: float) -> torch.Tensor:
        """See `Operations.attend`."""
        step, query = self._step(batch), _with_dense_dims(query)
        output = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        if any(count == 1 for count in batch.num_new):
            decode_attention(self.pool, layer, query, step, scale, output, self._num_multiprocessors)
        if any(count > 1 for count in batch.num_new):
            prefill_attention(self.pool, layer, query, step, scale, output)
        return output

    @torch.inference_mode()
    def warm_up(self, num_heads: int) -> None:
        """Compiles the kernels by running each; what the pool's pages hold afterwards is meaningless.

        Call before the pool serves anybody.
        """
        layout, device = self.pool.layout, self.pool.raw.device
        stored_kinds = [RAW, SEALED if self.pool.num_sealed_pages else RAW]
        for num_new in (1, 2):
            batch = warm_up_batch(num_new, stored_kinds)
            shape = (num_new, layout.num_kv_heads, layout.head_dim)
            key = torch.zeros(shape, dtype=layout.raw_dtype, device=device)
            self.append(0, key, key, batch.slots)
            query = torch.zeros((num_new, num_heads, layout.head_dim), dtype=layout.raw_dtype, device=device)
            self.attend(0, query, batch, 1.0)
        if self.pool.num_sealed_pages:
            first = torch.zeros(1, dtype=torch.int64)
            self.seal(slice(None), first, first)

    @cached_property
    def _num_multiprocessors(self) -> int:
        device = self.pool.raw.device
        return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1

    def _step(self, batch: AttentionBatch) -> StepTensors:
        """The batch on the device, copied at the step's first layer."""
        if self._copied is None or self._copied[0] is not batch:
            self._copied = (batch, step_tensors(batch, self.pool.raw.device))
        return self._copied[1]

    def _moved(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.pool.raw.device)


def _with_dense_dims(x: torch.Tensor) -> torch.Tensor:
    """The same numbers with the dims of a head side by side, as the kernels read them."""
    return x if x.stride(-1) == 1 else x.contiguous()
