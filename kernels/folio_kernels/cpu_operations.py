"""The operations on a CPU pool: the reference's functions, compiled once, called for every step.

Knows which functions are worth compiling and how to keep them from being compiled again. Their mathematics is
`reference`'s and `cpu_attention`'s.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch

from folio_kernels import reference
from folio_kernels.cpu_attention import (
    MIN_EXTENT,
    DecodePlan,
    PrefillPlan,
    StepPlan,
    decode_attention,
    plan_step,
    prefill_attention,
    stored_history,
)
from folio_kernels.layout import PAGE_SIZE
from folio_kernels.pool import RAW, SEALED, AttentionBatch, PagePool

WARM_UP_LENGTHS = ((1, 65, 450, 715, 130), (100,), (130, 70), (64, 5, 7), (1,))
"""Histories of the warm-up's decode steps. The first compiles: no two extents of its items may be equal, or the
compiler takes them for one and compiles again when they differ."""


class CpuOperations:
    """See `operations.Operations`.

    Args:
        pool: the pages, on the CPU.
        compiled: compile decode attention, decompression and compression with torch's inductor.
    """

    def __init__(self, pool: PagePool, *, compiled: bool) -> None:
        self.pool = pool
        self._is_compiled = compiled
        self._decode_attention = self._compile(decode_attention)
        self._decode_pages = self._compile(reference.decode_pages)
        # Rounds to fp16 where the plain function does: sealed bytes must not depend on who computed them.
        self._encode_pages = self._compile(reference.encode_pages, emulate_precision_casts=True)
        views = {name: pool.sealed_field(name) for name in pool.layout.fields}
        self._fields = [
            {name: view[:, layer] for name, view in views.items()} for layer in range(pool.layout.num_layers)
        ]
        self._planned: tuple[AttentionBatch, StepPlan] | None = None
        self._is_warming_up = False

    def _compile(
        self, function: Callable[..., Any], **options: str | int | bool | Callable[..., Any]
    ) -> Callable[..., Any]:
        if not self._is_compiled:
            return function
        return torch.compile(function, fullgraph=True, options=options)

    def append(self, layer: int, key: torch.Tensor, value: torch.Tensor, slots: torch.Tensor) -> None:
        """See `Operations.append`."""
        reference.append(self.pool, layer, key, value, slots)

    def seal(self, layers: slice, raw_pages: torch.Tensor, sealed_pages: torch.Tensor) -> None:
        """See `Operations.seal`."""
        raw = self.pool.raw[:, layers][raw_pages]
        leading, pages = raw.shape[:3], _at_least(MIN_EXTENT, raw.flatten(0, 2))
        keys, values = pages[:, 0], pages[:, 1]
        self._vary(keys, values)
        fields = self._encode_pages(keys, values, self.pool.layout.codec)
        count = leading.numel()
        encoded = {name: values[:count].unflatten(0, leading) for name, values in fields.items()}
        reference.write_fields(self.pool, layers, sealed_pages, encoded)

    def attend(self, layer: int, query: torch.Tensor, batch: AttentionBatch, scale: float) -> torch.Tensor:
        """See `Operations.attend`."""
        plan = self._plan(batch)
        if plan.decode is not None and not plan.prefills:
            return self._decode(layer, query, plan.decode, scale).to(query.dtype)
        output = torch.empty(query.shape)
        if plan.decode is not None:
            output[plan.decode.rows[: plan.decode.num_sequences]] = self._decode(layer, query, plan.decode, scale)
        for prefill in plan.prefills:
            output[prefill.rows] = self._prefill(layer, query[prefill.rows].float(), prefill, scale)
        return output.to(query.dtype)

    def _plan(self, batch: AttentionBatch) -> StepPlan:
        """The step's plan, made at its first layer."""
        if self._planned is None or self._planned[0] is not batch:
            self._planned = (batch, plan_step(batch))
        return self._planned[1]

    def _decode(self, layer: int, query: torch.Tensor, plan: DecodePlan, scale: float) -> torch.Tensor:
        rows = query[plan.rows].float() * scale
        self._vary(rows, plan.raw_pages, plan.raw_rows, plan.raw_lengths)
        if plan.sealed_pages is not None and plan.sealed_rows is not None:
            self._vary(plan.sealed_pages, plan.sealed_rows)
        self._vary(plan.merge_table, dims=(0, 1))
        output: torch.Tensor = self._decode_attention(
            rows, self.pool.raw[:, layer], self._fields[layer], plan, self.pool.layout.codec, self.pool.rotation
        )
        return output[: plan.num_sequences]

    def _prefill(self, layer: int, query: torch.Tensor, plan: PrefillPlan, scale: float) -> torch.Tensor:
        pages = plan.stored_ids[plan.stored_kinds == SEALED]
        chosen = _at_least(MIN_EXTENT, pages) if len(pages) else torch.zeros(MIN_EXTENT, dtype=torch.int64)
        stored = {name: values[chosen] for name, values in self._fields[layer].items()}
        self._vary(*stored.values())
        keys, values = self._decode_pages(stored, self.pool.layout.codec)
        history = stored_history(self.pool.raw[:, layer], keys[: len(pages)], values[: len(pages)], plan)
        output = prefill_attention(query, history, plan.mask, scale)
        return output if self.pool.rotation is None else output @ self.pool.rotation

    @torch.inference_mode()
    def warm_up(self, num_heads: int) -> None:
        """Runs decode steps, prefills and sealing on pages of the pool; what those hold afterwards is meaningless.

        Call before the pool serves anybody.
        """
        layout = self.pool.layout
        self._is_warming_up = True
        for lengths in WARM_UP_LENGTHS:
            for num_new in (1, 2):
                batch = self._warm_up_batch(lengths, num_new)
                num_tokens = len(lengths) * num_new
                key = torch.zeros((num_tokens, layout.num_kv_heads, layout.head_dim))
                self.append(0, key, key, batch.slots)
                self.attend(0, torch.zeros((num_tokens, num_heads, layout.head_dim)), batch, 1.0)
        first = torch.zeros(1, dtype=torch.int64)
        self.seal(slice(None), first, first)
        self.seal(slice(0, 1), first, first)
        self._is_warming_up = False

    def _vary(self, *tensors: torch.Tensor, dims: Iterable[int] = (0,)) -> None:
        """Tells the compiler, while warming up, which dimensions differ from step to step."""
        if self._is_warming_up:
            for tensor, dim in itertools.product(tensors, dims):
                torch._dynamo.maybe_mark_dynamic(tensor, dim)  # noqa: SLF001 - public by its documentation

    def _warm_up_batch(self, lengths: tuple[int, ...], num_new: int) -> AttentionBatch:
        histories = [length + num_new for length in lengths]
        num_pages = max(histories) // PAGE_SIZE + 1
        kinds = torch.full((len(histories), num_pages), SEALED if self.pool.num_sealed_pages else RAW)
        kinds[:, 0] = RAW
        empty = torch.empty(0, dtype=torch.int64)
        return AttentionBatch(
            query_starts=torch.arange(len(histories) + 1) * num_new,
            lengths=torch.tensor(histories),
            page_tables=torch.zeros((len(histories), num_pages), dtype=torch.int64),
            page_kinds=kinds,
            open_pages=torch.zeros((len(histories), 2), dtype=torch.int64),
            slots=torch.zeros(len(histories) * num_new, dtype=torch.int64),
            seal_raw=empty,
            seal_sealed=empty,
        )


def _at_least(count: int, rows: torch.Tensor) -> torch.Tensor:
    """The rows, the first one repeated until there are `count`."""
    missing = count - len(rows)
    return rows if missing <= 0 else torch.cat([rows, rows[:1].expand(missing, *rows.shape[1:])])
