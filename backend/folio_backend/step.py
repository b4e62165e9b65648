"""One step's input: the scheduled choices as one flattened row of tokens.

Knows how page tables become the tensors that the kernels read; computes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from folio_backend.cache.page import PageKind
from folio_backend.cache.page_table import PageTable
from folio_kernels.layout import PAGE_SIZE
from folio_kernels.pool import RAW, SEALED, AttentionBatch


@dataclass(frozen=True)
class StepInput:
    """What the model computes in one step.

    Attributes:
        token_ids, positions: int64 `[tokens]`.
        attention: the sequences the tokens belong to.
        logits_rows: int64 `[rows]`: the tokens whose logits are wanted.
        seal_after_raw, seal_after_sealed: int64: pages that single-token sequences fill, sealed in all layers at once
            when the step is over; nobody reads them before.
    """

    token_ids: torch.Tensor
    positions: torch.Tensor
    attention: AttentionBatch
    logits_rows: torch.Tensor
    seal_after_raw: torch.Tensor
    seal_after_sealed: torch.Tensor


@dataclass(frozen=True)
class StepSequence:
    """One sequence's part in a step: `token_ids` are the new ones; its table has been extended by as many."""

    table: PageTable
    token_ids: list[int]
    wants_logits: bool

    @property
    def start(self) -> int:
        """The position of the first new token."""
        return self.table.num_computed_tokens

    def stored_pages(self) -> list[tuple[int, int]]:
        """(page id, kind) of every page that is full when the step's keys are in."""
        pages = list(self.table.pages)
        for offset, page in enumerate(self.table.filling):
            pages.append(self.table.sealing.get(len(self.table.pages) + offset, page))
        full = pages[: (self.start + len(self.token_ids)) // PAGE_SIZE]
        return [(page.page_id, SEALED if page.kind is PageKind.SEALED else RAW) for page in full]

    def slots(self) -> list[int]:
        """Where each new token's key and value go."""
        first = self.start // PAGE_SIZE
        ids = [page.page_id for page in self.table.filling]
        return [
            ids[position // PAGE_SIZE - first] * PAGE_SIZE + position % PAGE_SIZE
            for position in range(self.start, self.start + len(self.token_ids))
        ]

    def seals(self) -> list[tuple[int, int]]:
        """(raw page, sealed page) of each page to be sealed."""
        first = len(self.table.pages)
        return [(self.table.filling[index - first].page_id, page.page_id) for index, page in self.table.sealing.items()]


def build_step(sequences: list[StepSequence]) -> StepInput:
    """Flattens sequences, in their order, into one step."""
    counts = [len(sequence.token_ids) for sequence in sequences]
    starts = [0]
    for count in counts:
        starts.append(starts[-1] + count)
    seals = [pair for sequence, count in zip(sequences, counts, strict=True) if count > 1 for pair in sequence.seals()]
    seals_after = [
        pair for sequence, count in zip(sequences, counts, strict=True) if count == 1 for pair in sequence.seals()
    ]
    return StepInput(
        token_ids=torch.tensor([token for sequence in sequences for token in sequence.token_ids]),
        positions=torch.cat([torch.arange(s.start, s.start + n) for s, n in zip(sequences, counts, strict=True)]),
        attention=_attention_batch(sequences, starts, seals),
        logits_rows=torch.tensor(
            [end - 1 for sequence, end in zip(sequences, starts[1:], strict=True) if sequence.wants_logits],
            dtype=torch.int64,
        ),
        seal_after_raw=torch.tensor([raw for raw, _ in seals_after], dtype=torch.int64),
        seal_after_sealed=torch.tensor([sealed for _, sealed in seals_after], dtype=torch.int64),
    )


def _attention_batch(sequences: list[StepSequence], starts: list[int], seals: list[tuple[int, int]]) -> AttentionBatch:
    stored = [sequence.stored_pages() for sequence in sequences]
    return AttentionBatch(
        query_starts=torch.tensor(starts, dtype=torch.int32),
        lengths=torch.tensor([s.start + len(s.token_ids) for s in sequences], dtype=torch.int32),
        page_tables=_rectangle([[page_id for page_id, _ in pages] for pages in stored]),
        page_kinds=_rectangle([[kind for _, kind in pages] for pages in stored]),
        open_pages=_rectangle([[page.page_id for page in sequence.table.filling] for sequence in sequences]),
        slots=torch.tensor([slot for sequence in sequences for slot in sequence.slots()]),
        seal_raw=torch.tensor([raw for raw, _ in seals], dtype=torch.int64),
        seal_sealed=torch.tensor([sealed for _, sealed in seals], dtype=torch.int64),
    )


def _rectangle(rows: list[list[int]]) -> torch.Tensor:
    """Rows of unequal length as an int32 matrix, filled up with zeros."""
    width = max((len(row) for row in rows), default=0)
    return torch.tensor([row + [0] * (width - len(row)) for row in rows], dtype=torch.int32).reshape(len(rows), width)
