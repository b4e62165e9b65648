"""The appending kernel: every key and value in its slot, values rotated if the codec rotates, nothing else touched."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from folio_kernels import reference
from folio_kernels.append import append
from folio_kernels.codecs import CODECS, codec_named
from folio_kernels.layout import PAGE_SIZE, PageLayout
from folio_kernels.pool import PagePool
from tests.kernels.huge_memory import huge_tensor

NUM_PAGES = 6


def poisoned_pool(
    codec: str, head_dim: int, device: torch.device, num_kv_heads: int = 3, raw_dtype: torch.dtype = torch.float16
) -> PagePool:
    """Two layers of raw pages that hold NaN."""
    layout = PageLayout(2, num_kv_heads, head_dim, codec_named(codec), raw_dtype)
    pool = PagePool(layout, NUM_PAGES, 1, device)
    pool.raw.fill_(torch.nan)
    return pool


def keys_and_values(pool: PagePool, num_tokens: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Random `[tokens, kv_heads, head_dim]`, as a model gives them: heads before tokens in memory."""
    shape = (2, pool.layout.num_kv_heads, num_tokens, pool.layout.head_dim)
    both = torch.randn(shape, generator=torch.Generator().manual_seed(num_tokens)).to(pool.raw.device, dtype)
    key, value = both.transpose(1, 2)
    return key, value


def appended_by_reference(
    pool: PagePool, layer: int, key: torch.Tensor, value: torch.Tensor, slots: torch.Tensor
) -> torch.Tensor:
    """The raw pages that the reference leaves; the pool stays as it is."""
    before = pool.raw.clone()
    reference.append(pool, layer, key, value, slots)
    after = pool.raw.clone()
    pool.raw.copy_(before)
    return after


def random_slots(count: int, device: torch.device) -> torch.Tensor:
    order = torch.randperm(NUM_PAGES * PAGE_SIZE, generator=torch.Generator().manual_seed(count))
    return order[:count].to(device)


@pytest.mark.parametrize("num_tokens", [0, 1, 7, 150])
@pytest.mark.parametrize("head_dim", [64, 128, 256])
@pytest.mark.parametrize("codec", CODECS)
def test_appended_tokens_lie_where_the_reference_puts_them(
    codec: str, head_dim: int, num_tokens: int, device: torch.device
) -> None:
    pool = poisoned_pool(codec, head_dim, device)
    key, value = keys_and_values(pool, num_tokens, torch.float16)
    slots = random_slots(num_tokens, device)
    expected = appended_by_reference(pool, 1, key, value, slots)
    append(pool, 1, key, value, slots)
    assert torch.equal(pool.raw[:, :, :, 0].nan_to_num(-9.0), expected[:, :, :, 0].nan_to_num(-9.0))
    # A rotated value is a sum of head_dim products, taken in another order and rounded to fp16: one unit in the last
    # place, of numbers up to 8.
    tolerance = 2**-8 if pool.layout.codec.rotates_values else 0.0
    difference = (pool.raw[:, :, :, 1] - expected[:, :, :, 1]).nan_to_num(nan=0.0).abs()
    assert difference.max() <= tolerance
    assert torch.equal(pool.raw.isnan(), expected.isnan())


def test_values_are_rotated_in_full_precision(device: torch.device) -> None:
    pool = poisoned_pool("int4", 128, device, raw_dtype=torch.float32)
    key, value = keys_and_values(pool, 40, torch.float32)
    slots = random_slots(40, device)
    append(pool, 0, key, value, slots)
    assert pool.rotation is not None
    rotated = value.double() @ pool.rotation.double()
    stored = pool.raw[slots // PAGE_SIZE, 0, :, 1, slots % PAGE_SIZE]
    assert (stored - rotated).abs().max() < 1e-5  # fp32 sums of 128 terms of about 0.1


@pytest.mark.parametrize("num_tokens", [1, 3, 64, 65, 200])
def test_a_tokens_bytes_do_not_depend_on_those_that_came_with_it(num_tokens: int, device: torch.device) -> None:
    alone, together = (poisoned_pool("int4", 128, device) for _ in range(2))
    key, value = keys_and_values(alone, num_tokens, torch.float16)
    slots = torch.arange(num_tokens, device=device)
    append(together, 0, key, value, slots)
    for token in (0, num_tokens // 2, num_tokens - 1):
        append(alone, 0, key[token : token + 1], value[token : token + 1], slots[token : token + 1])
        page, offset = divmod(token, PAGE_SIZE)
        assert torch.equal(alone.raw[page, 0, :, :, offset], together.raw[page, 0, :, :, offset])


@pytest.mark.parametrize("codec", ["int8", "int4"])
def test_a_cache_of_fp16_saturates(codec: str, device: torch.device) -> None:
    pool = poisoned_pool(codec, 64, device, num_kv_heads=1)
    huge = torch.full((1, 1, 64), 1e6, device=device)
    append(pool, 0, huge, -huge, torch.tensor([3], device=device))
    assert (pool.raw[0, 0, 0, 0, 3] == 65504).all()
    assert pool.raw[0, 0, 0, 1, 3, 0] == -65504


def test_slots_beyond_what_32_bits_count_are_written(tmp_path: Path) -> None:
    layout = PageLayout(32, 8, 128, codec_named("int4"), torch.float16)
    pool = PagePool(layout, 1, 0)
    num_pages = 2**32 // layout.raw_page_bytes + 2
    pool.raw = huge_tensor(tmp_path, (num_pages, *pool.raw.shape[1:]), torch.float16)
    assert pool.raw[:-1].numel() > 2**31
    key, value = keys_and_values(pool, 2, torch.float16)
    slots = torch.tensor([num_pages * PAGE_SIZE - 1, 5])
    append(pool, 31, key, value, slots)
    assert torch.equal(pool.raw[-1, 31, :, 0, -1], key[0])
    assert torch.equal(pool.raw[0, 31, :, 0, 5], key[1])
