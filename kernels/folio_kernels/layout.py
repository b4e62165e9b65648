"""Where every byte of a page lies: the one authority on the cache's memory format.

A raw page holds, per layer and KV head, `[2, page_size, head_dim]` elements of the cache's dtype, keys before values.
A sealed page holds, per layer and KV head, one record of bytes with these fields in this order, each aligned to 16:

| field | shape | dtype | when |
| --- | --- | --- | --- |
| key_codes | [page_size, head_dim * key_bits / 8] | uint8 | always |
| value_codes | [page_size, head_dim * value_bits / 8] | uint8 | always |
| key_scale | [head_dim] | float16 | key_bits <= 8 |
| key_zero | [head_dim] | float16 | key_bits < 8 |
| value_scale | [page_size] | float16 | value_bits <= 8 |
| value_zero | [page_size] | float16 | value_bits < 8 |

With `n = 8 / bits` codes in a byte, byte `b` of a token holds the dims `b`, `b + D/n`, `b + 2D/n`, ..., lowest bits
first, so that one shift and one mask yield a contiguous stretch of dims. 8-bit codes are signed (two's complement).

Bytes per token and KV head of a sealed page, metadata included (fp16: 256 at head_dim 64, 512 at 128):

| codec | head_dim 64 | 128 | 256 |
| --- | --- | --- | --- |
| none (fp16) | 256 | 512 | 1024 |
| int8 | 132 | 262 | 522 |
| k8v4 | 102 | 200 | 396 |
| int4 | 72 | 140 | 276 |
| k4v2 | 56 | 108 | 212 |

Does not know what the codes mean (`reference`) or which page belongs to whom (the backend's cache).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from folio_kernels.codecs import RAW_BITS, Codec

PAGE_SIZE = 64
"""Tokens in a page."""

HEAD_DIMS = (64, 128, 256)
"""Head sizes that the kernels are written for."""

FIELD_ALIGNMENT = 16
"""Bytes: the widest load a GPU thread makes."""


@dataclass(frozen=True)
class Field:
    """One field of a sealed record.

    `offset` and `num_bytes` count bytes from the record's start; `shape` counts elements of `dtype`.
    """

    name: str
    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        """Bytes that the field takes, without padding."""
        count = self.dtype.itemsize
        for extent in self.shape:
            count *= extent
        return count


@dataclass(frozen=True)
class PageLayout:
    """The shape of a model's pages.

    Raises:
        ValueError: head_dim is none of `HEAD_DIMS`, or a count is not positive.
    """

    num_layers: int
    num_kv_heads: int
    head_dim: int
    codec: Codec
    raw_dtype: torch.dtype

    def __post_init__(self) -> None:
        if self.head_dim not in HEAD_DIMS:
            raise ValueError(f"head_dim {self.head_dim} cannot be served; allowed: {HEAD_DIMS}")
        if self.num_layers < 1 or self.num_kv_heads < 1:
            raise ValueError(f"layers ({self.num_layers}) and KV heads ({self.num_kv_heads}) must be at least 1")

    @property
    def codecs(self) -> tuple[Codec, ...]:
        """The codec of each layer: here the same one."""
        return (self.codec,) * self.num_layers

    @cached_property
    def fields(self) -> dict[str, Field]:
        """The fields of a sealed record by name, in their order."""
        fields: dict[str, Field] = {}
        offset = 0
        for name, shape, dtype in self._field_shapes():
            field = Field(name, offset, shape, dtype)
            fields[name] = field
            offset += -(-field.num_bytes // FIELD_ALIGNMENT) * FIELD_ALIGNMENT
        return fields

    def _field_shapes(self) -> Iterator[tuple[str, tuple[int, ...], torch.dtype]]:
        codec = self.codec
        if not codec.compresses:
            yield "key_codes", (PAGE_SIZE, self.head_dim), self.raw_dtype
            yield "value_codes", (PAGE_SIZE, self.head_dim), self.raw_dtype
            return
        yield "key_codes", (PAGE_SIZE, self.head_dim * codec.key_bits // 8), torch.uint8
        yield "value_codes", (PAGE_SIZE, self.head_dim * codec.value_bits // 8), torch.uint8
        yield "key_scale", (self.head_dim,), torch.float16
        if codec.key_bits < 8:
            yield "key_zero", (self.head_dim,), torch.float16
        yield "value_scale", (PAGE_SIZE,), torch.float16
        if codec.value_bits < 8:
            yield "value_zero", (PAGE_SIZE,), torch.float16

    @property
    def sealed_record_bytes(self) -> int:
        """Bytes of one layer's and KV head's share of a sealed page."""
        last = list(self.fields.values())[-1]
        return last.offset + -(-last.num_bytes // FIELD_ALIGNMENT) * FIELD_ALIGNMENT

    @property
    def raw_record_elements(self) -> int:
        """Elements of one layer's and KV head's share of a raw page."""
        return 2 * PAGE_SIZE * self.head_dim

    @property
    def sealed_page_bytes(self) -> int:
        """Bytes of a sealed page, all layers and heads."""
        return self.num_layers * self.num_kv_heads * self.sealed_record_bytes

    @property
    def raw_page_bytes(self) -> int:
        """Bytes of a raw page, all layers and heads."""
        return self.num_layers * self.num_kv_heads * self.raw_record_elements * self.raw_dtype.itemsize

    @property
    def fp16_page_bytes(self) -> int:
        """Bytes that the same page takes uncompressed in fp16: the yardstick for compression."""
        return self.num_layers * self.num_kv_heads * self.raw_record_elements * RAW_BITS // 8
