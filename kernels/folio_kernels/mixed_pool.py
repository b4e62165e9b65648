"""Pages whose layers have codecs of their own: their shape, and their memory.

Layers of one codec make a part, and a part is a pool as any other. A page id names the same page in all of them, so
page tables and everything above know one page; the operations on it are `mixed_operations`'. Does not know why a layer
has its codec.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from folio_kernels.codecs import Codec
from folio_kernels.layout import PageLayout
from folio_kernels.pool import PagePool


@dataclass(frozen=True)
class LayoutPart:
    """The layers of one codec, in ascending order, and the shape of what a page holds of them."""

    layers: tuple[int, ...]
    layout: PageLayout


@dataclass(frozen=True)
class MixedLayout:
    """The shape of pages whose layers differ in codec alone.

    Attributes:
        codecs: of each layer.
    """

    num_kv_heads: int
    head_dim: int
    codecs: tuple[Codec, ...]
    raw_dtype: torch.dtype

    @cached_property
    def parts(self) -> tuple[LayoutPart, ...]:
        """One part per codec, in the order of their first layers."""
        layers: dict[Codec, list[int]] = {}
        for layer, codec in enumerate(self.codecs):
            layers.setdefault(codec, []).append(layer)
        return tuple(
            LayoutPart(
                tuple(members), PageLayout(len(members), self.num_kv_heads, self.head_dim, codec, self.raw_dtype)
            )
            for codec, members in layers.items()
        )

    @property
    def sealed_page_bytes(self) -> int:
        """Bytes of a sealed page, all layers and heads."""
        return sum(part.layout.sealed_page_bytes for part in self.parts)

    @property
    def raw_page_bytes(self) -> int:
        """Bytes of a raw page, all layers and heads."""
        return sum(part.layout.raw_page_bytes for part in self.parts)

    @property
    def fp16_page_bytes(self) -> int:
        """Bytes that the same page takes uncompressed in fp16."""
        return sum(part.layout.fp16_page_bytes for part in self.parts)


AnyLayout = PageLayout | MixedLayout


def layout_of(codecs: Sequence[Codec], num_kv_heads: int, head_dim: int, raw_dtype: torch.dtype) -> AnyLayout:
    """The shape of pages whose layers have these codecs.

    Raises:
        ValueError: see `PageLayout`.
    """
    if len(set(codecs)) == 1:
        return PageLayout(len(codecs), num_kv_heads, head_dim, codecs[0], raw_dtype)
    return MixedLayout(num_kv_heads, head_dim, tuple(codecs), raw_dtype)


class MixedPool:
    """The memory of pages whose layers have codecs of their own.

    Attributes:
        layout: the shape of a page.
        parts: one pool per part of the layout, in its order; all have the same page ids.
    """

    def __init__(
        self,
        layout: MixedLayout,
        num_raw_pages: int,
        num_sealed_pages: int,
        device: torch.device | str = "cpu",
        key_guide: torch.Tensor | None = None,
    ) -> None:
        self.layout = layout
        self.parts = tuple(
            PagePool(
                part.layout,
                num_raw_pages,
                num_sealed_pages,
                device,
                None if key_guide is None else key_guide[list(part.layers)],
            )
            for part in layout.parts
        )

    @property
    def device(self) -> torch.device:
        """Where the pages lie."""
        return self.parts[0].device

    @property
    def num_raw_pages(self) -> int:
        """Raw pages in all."""
        return self.parts[0].num_raw_pages

    @property
    def num_sealed_pages(self) -> int:
        """Sealed pages in all."""
        return self.parts[0].num_sealed_pages

    def copy_raw_page(self, source: int, target: int) -> None:
        """Copies one raw page within the pool."""
        for part in self.parts:
            part.copy_raw_page(source, target)


AnyPool = PagePool | MixedPool


def pool_of(
    layout: AnyLayout,
    num_raw_pages: int,
    num_sealed_pages: int,
    device: torch.device | str = "cpu",
    key_guide: torch.Tensor | None = None,
) -> AnyPool:
    """A pool of pages of that shape; `key_guide` as `PagePool` has it, for all layers."""
    if isinstance(layout, MixedLayout):
        return MixedPool(layout, num_raw_pages, num_sealed_pages, device, key_guide)
    return PagePool(layout, num_raw_pages, num_sealed_pages, device, key_guide)
