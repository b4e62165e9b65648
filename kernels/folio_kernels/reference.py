"""Every operation in plain PyTorch: the truth that kernels are tested against.

`encode_pages` and `decode_pages` define what a codec does to numbers; the CPU path compiles the former as it is.
`attend` is written for reading, one query block at a time, in the dtype it is given (fp64 in tests).
Knows nothing of devices, compilation or who owns a page.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from folio_kernels.codecs import Codec
from folio_kernels.layout import PAGE_SIZE
from folio_kernels.pool import SEALED, AttentionBatch, PagePool

FP16_MAX = 65504.0
CLIP_RATIOS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
"""Shares of a token's value range that the encoder tries; the one of least squared error wins."""
UNSHRUNK_BITS = 2
"""Values of at most so many bits have their scale corrected for what clipping shrinks; with more it is too little."""
LEAST_SHARED = 2.0**-10
"""Codes that vary less, as a share of their products with what they encode, vary by rounding alone: one entry of 256
that differs from the others is a 256th."""


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Packs codes `[..., D]` of `bits` bits (integers in int32) into bytes `[..., D * bits / 8]` uint8."""
    streams = codes.unflatten(-1, (8 // bits, -1)).unbind(-2)
    packed = streams[0]
    for index, stream in enumerate(streams[1:], start=1):
        packed = packed | (stream << (index * bits))
    return packed.to(torch.uint8)


def unpack(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """Unpacks bytes `[..., D * bits / 8]` into unsigned codes `[..., D]` float32."""
    words = packed.to(torch.int32)
    mask = (1 << bits) - 1
    return torch.cat([((words >> shift) & mask).float() for shift in range(0, 8, bits)], dim=-1)


def encode_symmetric(x: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """8 bits, one scale for all entries along `dim`: signed codes as uint8, and fp16 scales without `dim`."""
    scale = _to_fp16(x.abs().amax(dim, keepdim=True) / 127)
    codes = torch.round(x / _nonzero(scale)).clamp(-127, 127)
    return (codes.to(torch.int32) & 255).to(torch.uint8), scale.squeeze(dim)


def encode_asymmetric(
    x: torch.Tensor, dim: int, bits: int, clip_ratios: tuple[float, ...]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`bits` bits, one scale and zero for all entries along `dim`: int32 codes, fp16 scales and zeros without `dim`."""
    low, high = x.amin(dim, keepdim=True), x.amax(dim, keepdim=True)
    middle, reach = (low + high) / 2, (high - low) / 2
    best = _quantise(x, middle - reach, 2 * reach, bits)
    for ratio in clip_ratios[1:]:
        tried = _quantise(x, middle - ratio * reach, 2 * ratio * reach, bits)
        better = _squared_error(x, tried, dim) < _squared_error(x, best, dim)
        codes, scale, zero = (torch.where(better, new, old) for new, old in zip(tried, best, strict=True))
        best = (codes, scale, zero)
    codes, scale, zero = best
    return codes.to(torch.int32), scale.squeeze(dim), zero.squeeze(dim)


def unshrunk(
    x: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, dim: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero for given codes, such that what is lost has nothing in common with `x`.

    A clipped range loses the ends of `x`: what is decoded leans towards the middle. Attention averages values over
    tokens; what is lost at random averages out, what always leans one way stays.

    Args:
        x: what was encoded.
        codes: int32, of its shape.
        scale: fp16 without `dim`, as it was chosen; kept where the codes hardly vary.
        zero: as the scale.
        dim: along which entries share them.
    """
    numbers, above, count = codes.float(), x - zero.float().unsqueeze(dim), x.shape[dim]
    code_sum, above_sum, product = numbers.sum(dim), above.sum(dim), (numbers * above).sum(dim)
    shared = product - code_sum * above_sum / count
    spread = above.square().sum(dim) - above_sum.square() / count
    varies = shared > LEAST_SHARED * product
    found = _to_fp16(spread / torch.where(varies, shared, 1.0))
    new_zero = _to_fp16(zero.float() + (above_sum - found.float() * code_sum) / count)
    return torch.where(varies, found, scale), torch.where(varies, new_zero, zero)


def _quantise(
    x: torch.Tensor, low: torch.Tensor, extent: torch.Tensor, bits: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    levels = (1 << bits) - 1
    scale, zero = _to_fp16(extent / levels), _to_fp16(low)
    codes = torch.round((x - zero) / _nonzero(scale)).clamp(0, levels)
    return codes, scale, zero


def _squared_error(x: torch.Tensor, coded: tuple[torch.Tensor, torch.Tensor, torch.Tensor], dim: int) -> torch.Tensor:
    codes, scale, zero = coded
    return (codes * scale + zero - x).square().sum(dim, keepdim=True)


def _to_fp16(x: torch.Tensor) -> torch.Tensor:
    return x.clamp(-FP16_MAX, FP16_MAX).to(torch.float16)


def _nonzero(scale: torch.Tensor) -> torch.Tensor:
    """The scale as float32, one where it is zero: all entries are then the zero point, and every code is 0."""
    return torch.where(scale == 0, 1.0, scale.float())


def encode_pages(keys: torch.Tensor, values: torch.Tensor, codec: Codec) -> dict[str, torch.Tensor]:
    """Compresses full pages.

    Args:
        keys: `[..., page_size, head_dim]`, as a raw page holds them.
        values: the same shape, rotated already where the codec rotates.
        codec: what to compress with.

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
        codes, fields["key_scale"], fields["key_zero"] = encode_asymmetric(keys, -2, codec.key_bits, (1.0,))
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


def codes_of(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """The codes of a field of codes as float32 `[..., D]`: signed at 8 bits, unsigned below."""
    if bits == 8:
        return packed.view(torch.int8).float()
    return unpack(packed, bits)


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
    raw = pool.raw[:, layers][raw_pages]
    write_fields(pool, layers, sealed_pages, encode_pages(raw[..., 0, :, :], raw[..., 1, :, :], pool.layout.codec))


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
