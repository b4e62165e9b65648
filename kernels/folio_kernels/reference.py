"""Every operation in plain PyTorch: the truth that kernels are tested against.

`encode_pages` and `decode_pages` define what a codec does to numbers; the CPU path compiles the former as it is.
`attend` is written for reading, one query block at a time, in the dtype it is given (fp64 in tests).
Knows nothing of devices, compilation or who owns a page.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from folio_kernels.codecs import Codec
from folio_kernels.encoding import (
    CLIP_RATIOS,
    FP16_MAX,
    UNSHRUNK_BITS,
    codes_of,
    encode_asymmetric,
    encode_symmetric,
    pack,
    unshrunk,
)
from folio_kernels.key_guide import fitted_ranges, guided_codes
from folio_kernels.layout import PAGE_SIZE
from folio_kernels.pool import SEALED, AttentionBatch, PagePool


def encode_pages(
    keys: torch.Tensor, values: torch.Tensor, codec: Codec, guide: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """Compresses full pages.

    Args:
        keys: `[..., page_size, head_dim]`, as a raw page holds them.
        values: the same shape, rotated already where the codec rotates.
        codec: what to compress with.
        guide: what 4-bit keys are encoded by, `[..., 2, head_dim]` float32; without one each goes to the nearest code.

    Returns:
        The fields of the sealed records by name, each with its layout's shape behind the leading dimensions.
    """
    if not codec.compresses:
        return {"key_codes": keys, "value_codes": values}
    keys, values = keys.float(), values.float()
    fields: dict[str, torch.Tensor] = {}
    if codec.key_bits == 8:
        fields["key_codes"], fields["key_scale"] = encode_symmetric(keys, -2)
    else:
        codes, scale, zero = encode_asymmetric(keys, -2, codec.key_bits, (1.0,))
        if guide is not None:
            scale, zero = fitted_ranges(keys, codes, scale, zero, guide)
            codes = guided_codes(keys, scale, zero, codec.key_bits, guide)
        fields["key_scale"], fields["key_zero"] = scale, zero
        fields["key_codes"] = pack(codes, codec.key_bits)
    if codec.value_bits == 8:
        fields["value_codes"], fields["value_scale"] = encode_symmetric(values, -1)
    else:
        codes, scale, zero = encode_asymmetric(values, -1, codec.value_bits, CLIP_RATIOS)
        if codec.value_bits <= UNSHRUNK_BITS:
            scale, zero = unshrunk(values, codes, scale, zero, -1)
        fields["value_scale"], fields["value_zero"] = scale, zero
        fields["value_codes"] = pack(codes, codec.value_bits)
    return fields


def decode_pages(fields: Mapping[str, torch.Tensor], codec: Codec) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of sealed pages as float32 `[..., page_size, head_dim]`; values still rotated."""
    if not codec.compresses:
        return fields["key_codes"].float(), fields["value_codes"].float()
    keys = codes_of(fields["key_codes"], codec.key_bits) * fields["key_scale"].float().unsqueeze(-2)
    values = codes_of(fields["value_codes"], codec.value_bits) * fields["value_scale"].float().unsqueeze(-1)
    if "key_zero" in fields:
        keys = keys + fields["key_zero"].float().unsqueeze(-2)
    if "value_zero" in fields:
        values = values + fields["value_zero"].float().unsqueeze(-1)
    return keys, values


def append(pool: PagePool, layer: int, key: torch.Tensor, value: torch.Tensor, slots: torch.Tensor) -> None:
    """Writes new keys and values `[tokens, kv_heads, head_dim]` into raw pages, values rotated where the codec rotates.

    A cache of float16 saturates at +-65504 rather than hold an infinity.
    """
    if pool.rotation is not None:
        value = value.to(pool.rotation.dtype) @ pool.rotation
    if pool.raw.dtype == torch.float16:
        key, value = key.clamp(-FP16_MAX, FP16_MAX), value.clamp(-FP16_MAX, FP16_MAX)
    pages, offsets = slots // PAGE_SIZE, slots % PAGE_SIZE
    raw = pool.raw[:, layer]
    raw[pages, :, 0, offsets] = key.to(raw.dtype)
    raw[pages, :, 1, offsets] = value.to(raw.dtype)


def seal(pool: PagePool, layers: slice, raw_pages: torch.Tensor, sealed_pages: torch.Tensor) -> None:
    """Compresses full raw pages into sealed ones, in the given layers; the raw pages keep what they hold."""
    raw, guide = pool.raw[:, layers][raw_pages], None if pool.key_guide is None else pool.key_guide[layers]
    fields = encode_pages(raw[..., 0, :, :], raw[..., 1, :, :], pool.layout.codec, guide)
    write_fields(pool, layers, sealed_pages, fields)


def write_fields(pool: PagePool, layers: slice, sealed_pages: torch.Tensor, fields: Mapping[str, torch.Tensor]) -> None:
    """Writes encoded fields `[pages, layers, kv_heads, ...]` into their places in the sealed records."""
    for name, values in fields.items():
        pool.sealed_field(name)[:, layers][sealed_pages] = values


def read_sealed(pool: PagePool, layer: int, sealed_pages: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of a layer's sealed pages, float32 `[pages, kv_heads, page_size, head_dim]`; values rotated."""
    fields = {name: pool.sealed_field(name)[sealed_pages, layer] for name in pool.layout.fields}
    return decode_pages(fields, pool.layout.codec)


def attend(pool: PagePool, layer: int, query: torch.Tensor, batch: AttentionBatch, scale: float) -> torch.Tensor:
    """Attention of every query over its sequence's history by the page rule.

    Args:
        pool: the pages; this step's keys and values are appended and its full pages sealed already.
        layer: the layer within the pool.
        query: `[tokens, heads, head_dim]`; head `h` reads KV head `h // (heads / kv_heads)`.
        batch: the sequences the tokens belong to.
        scale: what scores are multiplied by.

    Returns:
        `[tokens, heads, head_dim]` in the query's dtype.
    """
    output = torch.empty_like(query)
    starts: list[int] = batch.query_starts.tolist()
    for sequence, length in enumerate(batch.lengths.tolist()):
        first_position = length - batch.num_new[sequence]
        for index in range(batch.num_new[sequence]):
            position = first_position + index
            keys, values = history(pool, layer, batch, sequence, position)
            row = starts[sequence] + index
            output[row] = attend_one(query[row], keys, values, scale)
    if pool.rotation is not None:
        output = output @ pool.rotation.to(output.dtype)
    return output


def history(
    pool: PagePool, layer: int, batch: AttentionBatch, sequence: int, position: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a query at `position` reads: keys and values float32 `[kv_heads, position + 1, head_dim]`."""
    own_page = position // PAGE_SIZE
    first_position = int(batch.lengths[sequence]) - batch.num_new[sequence]
    parts = []
    for page in range(own_page):
        stored = batch.page_tables[sequence, page]
        if batch.page_kinds[sequence, page] == SEALED:
            keys, values = read_sealed(pool, layer, stored.unsqueeze(0).long())
            parts.append((keys[0], values[0]))
        else:
            parts.append((pool.raw[stored, layer, :, 0].float(), pool.raw[stored, layer, :, 1].float()))
    own = pool.raw[batch.open_pages[sequence, own_page - first_position // PAGE_SIZE], layer].float()
    num_own = position % PAGE_SIZE + 1
    parts.append((own[:, 0, :num_own], own[:, 1, :num_own]))
    return torch.cat([keys for keys, _ in parts], 1), torch.cat([values for _, values in parts], 1)


def attend_one(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
    """One query `[heads, head_dim]` over `[kv_heads, length, head_dim]`: `[heads, head_dim]`."""
    grouped = query.unflatten(0, (keys.shape[0], -1))
    scores = torch.einsum("hgd,htd->hgt", grouped, keys.to(query.dtype)) * scale
    return torch.einsum("hgt,htd->hgd", scores.softmax(-1), values.to(query.dtype)).flatten(0, 1)


def copy_pages(pages: torch.Tensor, page_ids: torch.Tensor, buffer: torch.Tensor, *, to_buffer: bool) -> None:
    """Copies whole pages of one kind between the pool and a contiguous buffer.

    Args:
        pages: `pool.raw` or `pool.sealed`.
        page_ids: `[count]` int64, which pages.
        buffer: `[count, *page]` of the pool's dtype.
        to_buffer: from the pool into the buffer, or back.
    """
    if to_buffer:
        torch.index_select(pages, 0, page_ids, out=buffer)
    else:
        pages.index_copy_(0, page_ids, buffer)
