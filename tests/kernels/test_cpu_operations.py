"""The CPU path against the plain reference in fp64, and against itself, however a sequence is cut."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.utils import counters

from folio_kernels import reference
from folio_kernels.codecs import CODECS
from folio_kernels.cpu_operations import CpuOperations
from folio_kernels.pool import RAW, SEALED, PagePool
from tests.kernels.cut_sequences import run_in_chunks
from tests.kernels.paged_histories import random_batch, random_pool
from tests.kernels.test_key_guide import random_guide

TOLERANCE = 1e-5
"""fp32 sums of up to a thousand unit-sized terms, in another order."""

SHAPES = [(1, 1), (3, 1), (2, 3), (1, 4), (1, 8)]
"""KV heads and queries per KV head."""


IS_COMPILED = [pytest.param(True, id="compiled"), pytest.param(False, id="without a compiler")]


@pytest.mark.parametrize("compiled", IS_COMPILED)
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize(("num_kv_heads", "group"), SHAPES)
def test_attention_equals_the_reference(
    codec: str, head_dim: int, num_kv_heads: int, group: int, *, compiled: bool
) -> None:
    pool = random_pool(codec, num_pages=48, num_kv_heads=num_kv_heads, head_dim=head_dim)
    lengths, num_new = [1, 63, 64, 65, 1000, 128, 129, 200], [1, 1, 1, 1, 1, 2, 3, 140]
    batch = random_batch(pool, lengths, num_new)
    query = torch.randn((sum(num_new), num_kv_heads * group, head_dim), dtype=torch.float64)
    expected = reference.attend(pool, 1, query, batch, head_dim**-0.5)
    output = CpuOperations(pool, compiled=compiled).attend(1, query.float(), batch, head_dim**-0.5)
    assert (output - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize("head_dim", [64, 128, 256])
@pytest.mark.parametrize("raw_dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("codec", ["none", "int4"])
def test_attention_reads_half_precision_pages(codec: str, raw_dtype: torch.dtype, head_dim: int) -> None:
    pool = random_pool(codec, num_pages=24, head_dim=head_dim, raw_dtype=raw_dtype)
    batch = random_batch(pool, [300, 130, 7], [1, 1, 7])
    query = torch.randn((9, 4, head_dim), dtype=torch.float64)
    expected = reference.attend(pool, 1, query, batch, 0.1)
    output = CpuOperations(pool, compiled=True).attend(1, query.float(), batch, 0.1)
    assert (output - expected).abs().max() < TOLERANCE


def test_heads_that_lie_apart_in_memory_give_the_same() -> None:
    pool = random_pool("int8", num_pages=12)
    batch = random_batch(pool, [130, 70], [1, 8])
    query = torch.randn((4, 9, 64)).transpose(0, 1)
    operations = CpuOperations(pool, compiled=True)
    together = operations.attend(0, query.contiguous(), batch, 0.125)
    assert torch.equal(operations.attend(0, query, batch, 0.125), together)


def test_a_score_far_below_the_largest_counts_for_nothing_and_far_above_for_all() -> None:
    pool = random_pool("none", num_pages=12)
    batch = random_batch(pool, [130], [1])
    query = torch.randn((1, 2, 64), dtype=torch.float64) * 1e3
    expected = reference.attend(pool, 0, query, batch, 1.0)
    output = CpuOperations(pool, compiled=True).attend(0, query.float(), batch, 1.0)
    assert (output - expected).abs().max() < TOLERANCE


def half_precision_extremes() -> torch.Tensor:
    """Every finite float16 and, between each two, what must be rounded; some beyond the largest."""
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16).float()
    finite = every[every.isfinite()].sort().values
    between = [finite[:-1].lerp(finite[1:], share) for share in (0.25, 0.5, 0.75)]
    values = torch.cat([finite, *between, torch.tensor([65519.0, 65520.0, 1e9, -1e9, 1e-9, -0.0])])
    return torch.nn.functional.pad(values, (0, -len(values) % 64)).reshape(-1, 1, 64)


@pytest.mark.parametrize("raw_dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_appended_is_rounded_as_torch_rounds_it(raw_dtype: torch.dtype) -> None:
    values = half_precision_extremes()
    pools = [random_pool("none", num_pages=len(values) // 64 + 1, num_kv_heads=1, raw_dtype=raw_dtype) for _ in "ab"]
    slots = torch.randperm(len(values))
    reference.append(pools[0], 1, values, -values, slots)
    CpuOperations(pools[1], compiled=True).append(1, values, -values, slots)
    assert torch.equal(pools[0].raw, pools[1].raw)


@pytest.mark.parametrize("head_dim", [64, 128, 256])
def test_appended_values_are_rotated(head_dim: int) -> None:
    pools = [random_pool("int4", num_pages=4, head_dim=head_dim) for _ in "ab"]
    value = torch.randn((5, 2, head_dim))
    slots = torch.tensor([0, 70, 3, 255, 128])
    reference.append(pools[0], 0, value, value, slots)
    CpuOperations(pools[1], compiled=True).append(0, value, value, slots)
    assert (pools[0].raw - pools[1].raw).abs().max() < TOLERANCE


@pytest.mark.parametrize("compiled", IS_COMPILED)
def test_what_unused_slots_and_pages_hold_does_not_matter(*, compiled: bool) -> None:
    pool = random_pool("none", num_pages=12)
    batch = random_batch(pool, [130, 70], [1, 8])
    query = torch.randn((9, 4, 64))
    operations = CpuOperations(pool, compiled=compiled)
    expected = operations.attend(0, query, batch, 0.125)
    used_raw = {int(page) for page in batch.open_pages.flatten()}
    used_raw |= {int(page) for page in batch.page_tables[batch.page_kinds == RAW]}
    used_sealed = {int(page) for page in batch.page_tables[batch.page_kinds == SEALED]}
    pool.raw[[page for page in range(12) if page not in used_raw]] = torch.nan
    pool.sealed_field("key_codes")[[page for page in range(12) if page not in used_sealed]] = torch.nan
    pool.raw[batch.open_pages[0, 0], :, :, :, 2:] = torch.nan
    pool.raw[batch.open_pages[1, 1], :, :, :, 6:] = torch.nan
    assert torch.equal(operations.attend(0, query, batch, 0.125), expected)


@pytest.mark.parametrize("codec", ["none", "int8", "int4"])
@given(cuts=st.lists(st.integers(1, 299), max_size=6).map(sorted))
@settings(deadline=None, max_examples=15)
def test_attention_is_the_same_however_a_sequence_is_cut(codec: str, cuts: list[int]) -> None:
    pool = random_pool(codec, num_pages=5, num_layers=1)
    operations = CpuOperations(pool, compiled=False)
    operations.attend = CpuOperations(pool, compiled=True).attend  # type: ignore[method-assign] # seals uncompiled
    tokens = torch.randn((300, 2, 64), generator=torch.Generator().manual_seed(5))
    whole = run_in_chunks(operations, tokens, [])
    assert (run_in_chunks(operations, tokens, cuts) - whole).abs().max() < TOLERANCE


def warm_pool(codec: str) -> PagePool:
    """Pages as a server writes them: keys of 4 bits by a guide."""
    guide = random_guide(2, 3, 64) if codec == "int4" else None
    return random_pool(codec, num_pages=40, num_kv_heads=3, raw_dtype=torch.float16, key_guide=guide)


@torch.inference_mode()
@pytest.mark.parametrize("codec", ["int8", "int4"])
def test_no_shape_is_compiled_after_the_warm_up_and_pages_are_the_references(codec: str) -> None:
    torch._dynamo.reset()
    pool = warm_pool(codec)
    operations = CpuOperations(pool, compiled=True)
    operations.warm_up(num_heads=9)
    pool.raw.copy_(warm_pool(codec).raw)
    pool.sealed.copy_(warm_pool(codec).sealed)
    compiled = counters["stats"]["unique_graphs"]
    for lengths, num_new in (
        ([1], [1]),
        ([64], [1]),
        ([500, 65, 7], [1, 1, 1]),
        ([130], [130]),
        ([600, 20], [30, 1]),
        ([64] * 16, [1] * 16),
    ):
        batch = random_batch(pool, lengths, num_new)
        query = torch.randn((sum(num_new), 9, 64))
        expected = reference.attend(pool, 0, query.double(), batch, 0.125)
        assert (operations.attend(0, query, batch, 0.125) - expected).abs().max() < TOLERANCE
    for layers, pages in ((slice(0, 1), [3]), (slice(0, 1), [4, 5, 6]), (slice(None), [7])):
        expected_bytes = pool.sealed[pages].clone()
        operations.seal(layers, torch.tensor(pages), torch.tensor(pages))
        # A guide's sums are taken in another order: a range may be the next fp16 number, a key between two codes move.
        differs = (pool.sealed[pages] != expected_bytes).float().mean()
        assert differs <= (0 if pool.key_guide is None else 1e-3)
    assert counters["stats"]["unique_graphs"] == compiled
