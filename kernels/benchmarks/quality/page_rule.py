"""Attention over a whole text at once, as the engine would compute it page by page.

By the page rule a query reads its own page as it came and every earlier one as it is stored. What is stored depends
on keys and values alone, so all pages of a layer are compressed and decompressed together, before its attention.
Knows no model and no pool.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from folio_kernels import reference
from folio_kernels.codecs import Codec
from folio_kernels.cpu_attention import masked_attention
from folio_kernels.layout import PAGE_SIZE
from folio_kernels.pool import hadamard

QUERY_BLOCK = 4 * PAGE_SIZE
"""Queries that share a launch: it reads at most this many keys too many, and fewer launches mean larger matrices."""


@dataclass(frozen=True)
class PageRule:
    """How a text's pages are stored.

    Attributes:
        codec: of the sealed pages.
        sink_pages: how many first pages stay raw.
        key_guide: what 4-bit keys are encoded by, of all layers, as `PagePool` has it.
    """

    codec: Codec
    sink_pages: int
    key_guide: torch.Tensor | None = None

    def stored(self, keys: torch.Tensor, values: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What later pages read of a layer's keys and values `[kv_heads, tokens, head_dim]` float32: the same shapes.

        The last page is not read by later ones, whether it is full or not, and comes back as it is.
        """
        num_pages = (keys.shape[1] - 1) // PAGE_SIZE
        sealed = slice(self.sink_pages * PAGE_SIZE, num_pages * PAGE_SIZE)
        if not self.codec.compresses or sealed.start >= sealed.stop:
            return keys, values
        stored_keys, stored_values = keys.clone(), values.clone()
        stored_keys[:, sealed], stored_values[:, sealed] = self._round_trip(
            keys[:, sealed], values[:, sealed], None if self.key_guide is None else self.key_guide[layer].unsqueeze(1)
        )
        return stored_keys, stored_values

    def _round_trip(
        self, keys: torch.Tensor, values: torch.Tensor, guide: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rotation = hadamard(values.shape[-1]) if self.codec.rotates_values else None
        if rotation is not None:
            values = values @ rotation
        fields = reference.encode_pages(_paged(keys), _paged(values), self.codec, guide)
        keys, values = (pages.flatten(1, 2) for pages in reference.decode_pages(fields, self.codec))
        return keys, values if rotation is None else values @ rotation


def page_rule_attention(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, rule: PageRule, scale: float, *, layer: int = 0
) -> torch.Tensor:
    """Causal attention of every token of one text.

    Args:
        query: `[tokens, heads, head_dim]` float32.
        keys: `[kv_heads, tokens, head_dim]` float32.
        values: as the keys.
        rule: how pages are stored.
        scale: what scores are multiplied by.
        layer: which layer's it is.

    Returns:
        `[tokens, heads, head_dim]`.
    """
    own = torch.stack([keys, values])
    stored = torch.stack(rule.stored(keys, values, layer))
    output = torch.empty_like(query)
    for block in _blocks(len(query)):
        num_stored = (block.stop - 1) // PAGE_SIZE * PAGE_SIZE
        history = torch.cat([stored[:, :, :num_stored], own[:, :, block]], 2)
        output[block] = masked_attention(query[block], history, _mask(block, num_stored), scale)
    return output


def _blocks(num_tokens: int) -> Iterator[slice]:
    for start in range(0, num_tokens, QUERY_BLOCK):
        yield slice(start, min(start + QUERY_BLOCK, num_tokens))


def _mask(block: slice, num_stored: int) -> torch.Tensor:
    """Which stored and own tokens each query of a block reads: `[block, stored + block]`, 0 or minus infinity."""
    positions = torch.arange(block.start, block.stop)
    pages = positions // PAGE_SIZE
    reads_stored = torch.arange(num_stored) // PAGE_SIZE < pages.unsqueeze(1)
    reads_own = (pages == pages.unsqueeze(1)) & (positions <= positions.unsqueeze(1))
    return torch.where(torch.cat([reads_stored, reads_own], 1), 0.0, -torch.inf)


def _paged(x: torch.Tensor) -> torch.Tensor:
    """`[kv_heads, tokens, head_dim]` as `[kv_heads, pages, page_size, head_dim]`."""
    pages: torch.Tensor = x.unflatten(1, (-1, PAGE_SIZE))
    return pages
