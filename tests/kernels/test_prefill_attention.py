"""The prefill kernel against the reference in fp64: chunks that start and end anywhere in a page."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from folio_kernels import reference
from folio_kernels.codecs import CODECS
from folio_kernels.pool import AttentionBatch, PagePool
from folio_kernels.prefill_attention import prefill_attention
from folio_kernels.step_tensors import step_tensors
from tests.kernels.attention_tolerance import assert_close_to_reference
from tests.kernels.huge_memory import huge_history
from tests.kernels.paged_histories import on_device, random_batch, random_pool

LENGTHS, NUM_NEW = [2, 64, 65, 1000, 200], [2, 2, 65, 3, 80]
"""Whole histories and tails of them, within a page, up to its end, over its end."""


def prefilled(pool: PagePool, layer: int, query: torch.Tensor, batch: AttentionBatch) -> torch.Tensor:
    """The kernel's output; rows that it does not write hold NaN."""
    output = torch.full(query.shape, torch.nan, dtype=query.dtype, device=query.device)
    prefill_attention(pool, layer, query, step_tensors(batch, query.device), query.shape[-1] ** -0.5, output)
    return output


@pytest.mark.parametrize(("num_kv_heads", "group", "head_dim"), [(1, 3, 64), (2, 1, 128), (1, 4, 64)])
@pytest.mark.parametrize("codec", CODECS)
def test_attention_equals_the_reference(
    codec: str, num_kv_heads: int, group: int, head_dim: int, device: torch.device
) -> None:
    pool = random_pool(codec, num_pages=40, num_kv_heads=num_kv_heads, head_dim=head_dim, raw_dtype=torch.float16)
    batch = random_batch(pool, LENGTHS, NUM_NEW)
    query = torch.randn((sum(NUM_NEW), num_kv_heads * group, head_dim), dtype=torch.float16)
    expected = reference.attend(pool, 1, query.double(), batch, head_dim**-0.5)
    assert_close_to_reference(prefilled(on_device(pool, device), 1, query.to(device), batch).cpu(), expected)


@pytest.mark.parametrize(("codec", "group"), [("none", 2), ("k8v4", 1), ("int4", 2), ("k4v2", 1)])
def test_wide_heads_are_served(codec: str, group: int, device: torch.device) -> None:
    """One head a program or two: their dims are taken in four parts or in two, raw ones all at once."""
    pool = random_pool(codec, num_pages=6, num_kv_heads=1, head_dim=256, raw_dtype=torch.float16)
    batch = random_batch(pool, [150], [20])
    query = torch.randn((20, group, 256), dtype=torch.float16)
    expected = reference.attend(pool, 1, query.double(), batch, 1 / 16)
    assert_close_to_reference(prefilled(on_device(pool, device), 1, query.to(device), batch).cpu(), expected)


@pytest.mark.parametrize("codec", ["none", "int4"])
def test_what_unused_pages_and_slots_hold_does_not_matter(codec: str, device: torch.device) -> None:
    pool = random_pool(codec, num_pages=12, raw_dtype=torch.float16)
    batch = random_batch(pool, [130], [4])
    query = torch.randn((4, 2, 64), dtype=torch.float16)
    expected = reference.attend(pool, 0, query.double(), batch, 0.125)
    used_raw = {int(page) for page in batch.open_pages[0]} | {int(batch.page_tables[0, 0])}
    pool.raw[[page for page in range(12) if page not in used_raw]] = torch.nan
    pool.sealed[[page for page in range(12) if page != int(batch.page_tables[0, 1])]] = 0x7E  # NaN as fp16
    pool.raw[:, 1] = torch.nan
    pool.raw[batch.open_pages[0, 1], :, :, :, 2:] = torch.nan
    assert_close_to_reference(prefilled(on_device(pool, device), 0, query.to(device), batch).cpu(), expected)


def test_sequences_without_or_with_one_new_token_are_passed_over(device: torch.device) -> None:
    pool = random_pool("int8", num_pages=12, raw_dtype=torch.float16)
    batch = random_batch(pool, [70, 130, 5, 90], [0, 1, 3, 0])
    query = torch.randn((4, 2, 64), dtype=torch.float16)
    expected = reference.attend(pool, 0, query.double(), batch, 0.125)
    output = prefilled(on_device(pool, device), 0, query.to(device), batch).cpu()
    assert output[0].isnan().all()
    assert_close_to_reference(output[1:], expected[1:])


def test_a_cache_of_float32_is_read_as_it_is(device: torch.device) -> None:
    pool = random_pool("int4", num_pages=6)
    batch = random_batch(pool, [150], [30])
    query = torch.randn((30, 2, 64))
    expected = reference.attend(pool, 0, query.double(), batch, 0.125)
    assert_close_to_reference(prefilled(on_device(pool, device), 0, query.to(device), batch).cpu(), expected)


@pytest.mark.parametrize("codec", ["int8", "int4", "k4v2"])
def test_the_largest_numbers_that_fp16_holds_are_read(codec: str, device: torch.device) -> None:
    """A channel of keys that queries do not look at, where not a number would show, and all values."""
    pool = random_pool(codec, num_pages=6, raw_dtype=torch.float16)
    largest = torch.where(torch.rand(pool.raw.shape) < 0.5, 65504.0, -65504.0).half()
    pool.raw[..., 0, :, 0], pool.raw[..., 1, :, :] = largest[..., 0, :, 0], largest[..., 1, :, :]
    reference.seal(pool, slice(None), torch.arange(6), torch.arange(6))
    batch = random_batch(pool, [150], [20])
    query = torch.randn((20, 2, 64), dtype=torch.float16)
    query[..., 0] = 0
    expected = reference.attend(pool, 0, query.double(), batch, 0.125)
    assert_close_to_reference(prefilled(on_device(pool, device), 0, query.to(device), batch).cpu(), expected)


def test_pages_beyond_what_32_bits_count_are_read(tmp_path: Path) -> None:
    pool, batch = huge_history(tmp_path, num_new=2)
    query = torch.randn((2, 8, 128), dtype=torch.float16)
    expected = reference.attend(pool, 31, query.double(), batch, 128**-0.5)
    assert_close_to_reference(prefilled(pool, 31, query, batch), expected)
