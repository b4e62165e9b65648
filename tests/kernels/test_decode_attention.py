"""The decode kernels against the reference in fp64: one new token per sequence, whatever the pages are called."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from folio_kernels import reference
from folio_kernels.codecs import CODECS
from folio_kernels.decode_attention import STRETCH_OVERHEAD_PAGES, decode_attention, share_out
from folio_kernels.pool import RAW, AttentionBatch, PagePool
from folio_kernels.step_tensors import step_tensors
from tests.kernels.attention_tolerance import assert_close_to_reference
from tests.kernels.huge_memory import huge_history
from tests.kernels.paged_histories import on_device, random_batch, random_pool

LENGTHS = [1, 63, 64, 65, 1000]


def decoded(
    pool: PagePool, layer: int, query: torch.Tensor, batch: AttentionBatch, num_multiprocessors: int = 1
) -> torch.Tensor:
    """The kernels' output; rows that they do not write hold NaN."""
    output = torch.full_like(query, torch.nan)
    step = step_tensors(batch, query.device)
    decode_attention(pool, layer, query, step, query.shape[-1] ** -0.5, output, num_multiprocessors)
    return output


@pytest.mark.parametrize(("num_kv_heads", "group", "head_dim"), [(3, 3, 64), (1, 8, 64), (1, 4, 128), (2, 1, 128)])
@pytest.mark.parametrize("codec", CODECS)
def test_attention_equals_the_reference(
    codec: str, num_kv_heads: int, group: int, head_dim: int, device: torch.device
) -> None:
    pool = random_pool(codec, num_pages=26, num_kv_heads=num_kv_heads, head_dim=head_dim, raw_dtype=torch.float16)
    batch = random_batch(pool, LENGTHS, [1] * len(LENGTHS))
    query = torch.randn((len(LENGTHS), num_kv_heads * group, head_dim), dtype=torch.float16)
    expected = reference.attend(pool, 1, query.double(), batch, head_dim**-0.5)
    output = decoded(on_device(pool, device), 1, query.to(device), batch)
    assert_close_to_reference(output.cpu(), expected)


@pytest.mark.parametrize(("group", "head_dim"), [(2, 256), (12, 64)])
def test_wide_heads_and_wide_groups_are_served(group: int, head_dim: int, device: torch.device) -> None:
    pool = random_pool("int4", num_pages=6, num_kv_heads=1, head_dim=head_dim, raw_dtype=torch.float16)
    batch = random_batch(pool, [200], [1])
    query = torch.randn((1, group, head_dim), dtype=torch.float16)
    expected = reference.attend(pool, 1, query.double(), batch, head_dim**-0.5)
    assert_close_to_reference(decoded(on_device(pool, device), 1, query.to(device), batch).cpu(), expected)


@pytest.mark.parametrize("codec", ["none", "int4"])
def test_a_cache_of_float32_is_read_as_it_is(codec: str, device: torch.device) -> None:
    pool = random_pool(codec, num_pages=6)
    batch = random_batch(pool, [200], [1])
    query = 100 * torch.randn((1, 2, 64))
    expected = reference.attend(pool, 0, query.double(), batch, 0.001)
    output = torch.empty((1, 2, 64), device=device)
    decode_attention(on_device(pool, device), 0, query.to(device), step_tensors(batch, device), 0.001, output, 1)
    assert_close_to_reference(output.cpu(), expected)


@pytest.mark.parametrize("num_multiprocessors", [1, 2, 500])
def test_any_number_of_stretches_gives_the_same(num_multiprocessors: int, device: torch.device) -> None:
    pool = random_pool("int8", num_pages=10, num_kv_heads=1, raw_dtype=torch.float16)
    batch = random_batch(pool, [500, 70], [1, 1])
    query = 3 * torch.randn(
        (2, 2, 64), dtype=torch.float16
    )  # so large that a late stretch may weigh more than the first
    expected = reference.attend(pool, 0, query.double(), batch, 0.125)
    output = decoded(on_device(pool, device), 0, query.to(device), batch, num_multiprocessors)
    assert_close_to_reference(output.cpu(), expected)


@pytest.mark.parametrize("codec", ["none", "int4"])
def test_what_unused_pages_and_slots_hold_does_not_matter(codec: str, device: torch.device) -> None:
    pool = random_pool(codec, num_pages=12, raw_dtype=torch.float16)
    batch = random_batch(pool, [130, 70], [1, 1])
    query = torch.randn((2, 4, 64), dtype=torch.float16)
    expected = reference.attend(pool, 0, query.double(), batch, 0.125)
    used_raw = {int(page) for page in batch.open_pages.flatten()}
    used_raw |= {int(batch.page_tables[0, 0]), int(batch.page_tables[1, 0])}
    pool.raw[[page for page in range(12) if page not in used_raw]] = torch.nan
    pool.sealed[[page for page in range(12) if page != int(batch.page_tables[0, 1])]] = 0x7E  # NaN as fp16
    pool.raw[:, 1] = torch.nan
    pool.raw[batch.open_pages[0, 0], :, :, :, 2:] = torch.nan
    pool.raw[batch.open_pages[1, 0], :, :, :, 6:] = torch.nan
    output = decoded(on_device(pool, device), 0, query.to(device), batch)
    assert_close_to_reference(output.cpu(), expected)


def test_sequences_without_or_with_several_new_tokens_are_passed_over(device: torch.device) -> None:
    pool = random_pool("int4", num_pages=12, raw_dtype=torch.float16)
    batch = random_batch(pool, [70, 130, 5, 90], [0, 3, 1, 0])
    query = torch.randn((4, 2, 64), dtype=torch.float16)
    expected = reference.attend(pool, 0, query.double(), batch, 0.125)
    output = decoded(on_device(pool, device), 0, query.to(device), batch).cpu()
    assert output[:3].isnan().all()
    assert_close_to_reference(output[3:], expected[3:])


def test_queries_may_lie_heads_before_tokens(device: torch.device) -> None:
    pool = random_pool("int8", num_pages=6, raw_dtype=torch.float16)
    batch = random_batch(pool, [70, 130], [1, 1])
    query = torch.randn((4, 2, 64), dtype=torch.float16).transpose(0, 1)
    expected = reference.attend(pool, 0, query.double(), batch, 0.125)
    output = torch.empty((2, 4, 64), dtype=torch.float16, device=device)
    moved = query.to(device)
    decode_attention(on_device(pool, device), 0, moved, step_tensors(batch, device), 0.125, output, 1)
    assert_close_to_reference(output.cpu(), expected)


def test_pages_beyond_what_32_bits_count_are_read(tmp_path: Path) -> None:
    pool, batch = huge_history(tmp_path, num_new=1)
    query = torch.randn((1, 8, 128), dtype=torch.float16)
    expected = reference.attend(pool, 31, query.double(), batch, 128**-0.5)
    assert_close_to_reference(decoded(pool, 31, query, batch), expected)


def test_a_raw_page_behind_a_sealed_one_is_refused() -> None:
    batch = random_batch(random_pool("int8", num_pages=8), [200], [1])
    batch.page_kinds[0, 2] = RAW
    with pytest.raises(ValueError, match="page 2 of sequence 0 is raw behind a sealed one"):
        step_tensors(batch, torch.device("cpu"))


@given(st.integers(0, 3000), st.integers(1, 500), st.integers(1, 2000))
def test_stretches_cover_every_page_once(num_pages: int, num_rows: int, num_programs_at_once: int) -> None:
    stretches = share_out(num_pages, num_rows, num_programs_at_once)
    assert stretches.count * stretches.num_pages >= num_pages
    assert (stretches.count - 1) * stretches.num_pages < max(num_pages, 1)


@given(st.integers(1, 200), st.integers(1, 300), st.integers(1, 600))
def test_no_other_stretches_end_sooner(num_pages: int, num_rows: int, num_programs_at_once: int) -> None:
    def end(count: int) -> int:
        num_waves = -(-num_rows * count // num_programs_at_once)
        return num_waves * (-(-num_pages // count) + STRETCH_OVERHEAD_PAGES)

    chosen = share_out(num_pages, num_rows, num_programs_at_once)
    assert end(chosen.count) == min(map(end, range(1, num_pages + 1)))


def test_few_sequences_are_shared_out_to_all_programs() -> None:
    assert share_out(2048, 8, 1056).count * 8 > 900
    assert share_out(32, 1056, 1056).count == 1
