"""The Triton kernels as operations: whole steps as the engine runs them, on batches that lie on the CPU."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from folio_kernels import reference
from folio_kernels.operations import Operations
from folio_kernels.triton_operations import TritonOperations
from tests.kernels.attention_tolerance import assert_close_to_reference
from tests.kernels.cut_sequences import run_in_chunks
from tests.kernels.paged_histories import on_device, random_batch, random_pool

CUT_TOLERANCE = 5e-3
"""Outputs of about 1: rounding to fp16 of queries, weights and results, in another order in each kernel."""


@pytest.mark.parametrize("codec", ["none", "k8v4"])
def test_decodes_and_prefills_share_a_step(codec: str, device: torch.device) -> None:
    pool = random_pool(codec, num_pages=24, num_kv_heads=1, raw_dtype=torch.float16)
    num_new = [1, 70, 1, 0, 3, 1]
    batch = random_batch(pool, [200, 130, 64, 90, 66, 1], num_new)
    query = torch.randn((sum(num_new), 3, 64), dtype=torch.float16)
    operations: Operations = TritonOperations(on_device(pool, device))
    output = operations.attend(1, query.to(device), batch, 0.125)
    assert_close_to_reference(output.cpu(), reference.attend(pool, 1, query.double(), batch, 0.125))


@pytest.mark.parametrize("codec", ["none", "int8", "int4"])
@given(cuts=st.lists(st.integers(1, 199), max_size=4).map(sorted))
@settings(deadline=None, max_examples=4)
def test_attention_is_the_same_however_a_sequence_is_cut(codec: str, device: torch.device, cuts: list[int]) -> None:
    pool = random_pool(codec, num_pages=4, num_layers=1, num_kv_heads=1, raw_dtype=torch.float16)
    operations = TritonOperations(on_device(pool, device))
    tokens = torch.randn((200, 1, 64), generator=torch.Generator().manual_seed(5)).half().to(device)
    whole = run_in_chunks(operations, tokens, [])
    assert (run_in_chunks(operations, tokens, cuts) - whole).abs().max() < CUT_TOLERANCE


@pytest.mark.parametrize("codec", ["none", "k4v2"])
def test_warming_up_needs_one_page_of_each_kind(codec: str, device: torch.device) -> None:
    pool = random_pool(codec, num_pages=1, raw_dtype=torch.float16)
    TritonOperations(on_device(pool, device)).warm_up(num_heads=6)
