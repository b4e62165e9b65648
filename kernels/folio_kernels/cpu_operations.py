"""The operations on a CPU pool: compiled kernels for what every token needs, a compiled reference for sealing.

Knows what is worth compiling and how to keep it from being compiled again. What it computes is `reference`'s.
"""

from __future__ import annotations

import torch

from folio_kernels import cpu_attention, reference
from folio_kernels.cpu_attention import SequencePlan, plan_sequence
from folio_kernels.cpu_library import CpuLibrary
from folio_kernels.pool import AttentionBatch, PagePool, warm_up_batch

MIN_PAGES = 2
"""Pages sealed together are at least so many: the compiler would specialise on 0 and on 1."""


class CpuOperations:
    """See `operations.Operations`.

    Args:
        pool: the pages, on the CPU.
        compiled: use the C++ kernels, and seal with the reference compiled by torch's inductor.

    Raises:
        RuntimeError: compiled, and there is no C++ compiler.
    """

    def __init__(self, pool: PagePool, *, compiled: bool) -> None:
        self.pool = pool
        self._library = CpuLibrary(pool) if compiled else None
        # Rounds to fp16 where the plain function does: sealed bytes must not depend on who computed them.
        encode = reference.encode_pages
        self._encode_pages = (
            torch.compile(encode, fullgraph=True, options={"emulate_precision_casts": True}) if compiled else encode
        )
        self._planned: tuple[AttentionBatch, tuple[SequencePlan, ...]] | None = None

    def append(self, layer: int, key: torch.Tensor, value: torch.Tensor, slots: torch.Tensor) -> None:
        """See `Operations.append`."""
        if self._library is None:
            reference.append(self.pool, layer, key, value, slots)
        else:
            self._library.append(layer, key, value, slots)

    def seal(self, layers: slice, raw_pages: torch.Tensor, sealed_pages: torch.Tensor) -> None:
        """See `Operations.seal`."""
        self._seal(layers, raw_pages, sealed_pages, is_first=False)

    def _seal(self, layers: slice, raw_pages: torch.Tensor, sealed_pages: torch.Tensor, *, is_first: bool) -> None:
        raw = self.pool.raw[:, layers][raw_pages]
        leading, pages = raw.shape[:3], _at_least(MIN_PAGES, raw.flatten(0, 2))
        keys, values, guide = pages[:, 0], pages[:, 1], self._guide(layers, leading)
        if is_first:
            for tensor in (keys, values, *(() if guide is None else (guide,))):
                torch._dynamo.maybe_mark_dynamic(tensor, 0)  # noqa: SLF001 - public by its documentation
        fields = self._encode_pages(keys, values, self.pool.layout.codec, guide)
        count = leading.numel()
        encoded = {name: values[:count].unflatten(0, leading) for name, values in fields.items()}
        reference.write_fields(self.pool, layers, sealed_pages, encoded)

    def _guide(self, layers: slice, leading: torch.Size) -> torch.Tensor | None:
        """What rounds each of a launch's pages, layers and heads: `[at least MIN_PAGES, 2, head_dim]`."""
        if self.pool.key_guide is None:
            return None
        return _at_least(MIN_PAGES, self.pool.key_guide[layers].expand(*leading, -1, -1).flatten(0, 2))

    def attend(self, layer: int, query: torch.Tensor, batch: AttentionBatch, scale: float) -> torch.Tensor:
        """See `Operations.attend`."""
        if self._library is not None:
            return self._library.attend(layer, query, batch, scale).to(query.dtype)
        if self._planned is None or self._planned[0] is not batch:
            plans = tuple(plan_sequence(batch, sequence) for sequence in range(len(batch.lengths)))
            self._planned = (batch, plans)
        return cpu_attention.attend(self.pool, layer, query.float(), self._planned[1], scale).to(query.dtype)

    @torch.inference_mode()
    def warm_up(self, num_heads: int) -> None:
        """Runs a step of two tokens, and sealing, on pages of the pool; what those hold afterwards is meaningless.

        Call before the pool serves anybody.
        """
        layout, first = self.pool.layout, torch.zeros(1, dtype=torch.int64)
        key = torch.zeros((2, layout.num_kv_heads, layout.head_dim))
        self.append(0, key, key, torch.arange(2))
        self.attend(0, torch.zeros((2, num_heads, layout.head_dim)), warm_up_batch(num_new=2), 1.0)
        self._seal(slice(None), first.repeat(MIN_PAGES + 1), first.repeat(MIN_PAGES + 1), is_first=True)
        self.seal(slice(None), first, first)
        self.seal(slice(0, 1), first, first)


def _at_least(count: int, rows: torch.Tensor) -> torch.Tensor:
    """The rows, the first one repeated until there are `count`."""
    missing = count - len(rows)
    return rows if missing <= 0 else torch.cat([rows, rows[:1].expand(missing, *rows.shape[1:])])
