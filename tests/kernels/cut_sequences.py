"""One sequence, computed chunk by chunk, for tests that it does not matter where it is cut."""

from __future__ import annotations

import torch

from folio_kernels.layout import PAGE_SIZE
from folio_kernels.operations import Operations
from folio_kernels.pool import RAW, SEALED, AttentionBatch
from tests.kernels.paged_histories import NOTHING


def run_in_chunks(operations: Operations, tokens: torch.Tensor, cuts: list[int]) -> torch.Tensor:
    """One sequence, appended and attended chunk by chunk; keys, queries and values are all `tokens`."""
    outputs = []
    pages: list[int] = []
    for start, end in zip([0, *cuts], [*cuts, len(tokens)], strict=True):
        if start == end:
            continue
        first, last = start // PAGE_SIZE, (end - 1) // PAGE_SIZE
        filled = list(range(first, end // PAGE_SIZE))
        pages += [page for page in filled if page >= len(pages)]
        chunk = tokens[start:end]
        operations.append(0, chunk, chunk, torch.arange(start, end))
        to_seal = torch.tensor([page for page in filled if page > 0], dtype=torch.int64)
        if len(to_seal):
            operations.seal(slice(0, 1), to_seal, to_seal)
        batch = AttentionBatch(
            query_starts=torch.tensor([0, end - start], dtype=torch.int32),
            lengths=torch.tensor([end], dtype=torch.int32),
            page_tables=torch.tensor([pages], dtype=torch.int32).reshape(1, -1),
            page_kinds=torch.tensor([[SEALED if page else RAW for page in pages]], dtype=torch.int32).reshape(1, -1),
            open_pages=torch.tensor([list(range(first, last + 1))], dtype=torch.int32),
            slots=NOTHING,
            seal_raw=NOTHING,
            seal_sealed=NOTHING,
        )
        outputs.append(operations.attend(0, chunk, batch, 0.125))
    return torch.cat(outputs)
