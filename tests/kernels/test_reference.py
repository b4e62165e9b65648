"""Codecs: what goes in comes out within the codec's bound, whatever goes in."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from folio_kernels import encoding, reference
from folio_kernels.codecs import CODECS, RAW_BITS, Codec, codec_named
from folio_kernels.layout import PAGE_SIZE, PageLayout
from folio_kernels.pool import PagePool, hadamard
from tests.kernels.paged_histories import random_pool

HEAD_DIM = 64
LOSSY = [codec for codec in CODECS.values() if codec.compresses]
SCALE_ROUNDING = 2**-10
"""Relative error of a scale or zero kept in fp16, and then some."""
SMALLEST_SCALE = 2**-24
"""Below fp16's smallest number a scale is zero, and all that it scales."""


def adversarial_pages(seed: int) -> torch.Tensor:
    """Ordinary noise, a constant channel, a huge outlier, denormals, both ends of fp16, and zeros."""
    pages = torch.randn((6, PAGE_SIZE, HEAD_DIM), generator=torch.Generator().manual_seed(seed))
    pages[1, :, 3] = 7.25
    pages[2, 5, 9] = 3e4
    pages[3] *= 1e-7
    pages[4] = torch.sign(pages[4]) * 65504
    pages[5] = 0
    return pages


def bound(x: torch.Tensor, bits: int, dim: int) -> torch.Tensor:
    """Half a quantisation step, and the rounding of what is kept in fp16."""
    low, high = x.amin(dim, keepdim=True), x.amax(dim, keepdim=True)
    largest = x.abs().amax(dim, keepdim=True)
    if bits == 8:
        return largest / 127 * 0.5 + 127 * SMALLEST_SCALE + largest * SCALE_ROUNDING
    levels = 2**bits - 1
    return (high - low) / levels * 0.5 + levels * SMALLEST_SCALE + (high - low + largest) * SCALE_ROUNDING


@pytest.mark.parametrize("codec", LOSSY, ids=lambda codec: codec.name)
@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=10)
def test_keys_come_back_within_half_a_step(codec: Codec, seed: int) -> None:
    keys = adversarial_pages(seed)
    decoded, _ = reference.decode_pages(reference.encode_pages(keys, keys, codec), codec)
    assert ((decoded - keys).abs() <= bound(keys, codec.key_bits, -2)).all()


@pytest.mark.parametrize("codec", LOSSY, ids=lambda codec: codec.name)
@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=10)
def test_values_lose_no_more_than_without_clipping(codec: Codec, seed: int) -> None:
    values = adversarial_pages(seed)
    _, decoded = reference.decode_pages(reference.encode_pages(values, values, codec), codec)
    error = (decoded - values).square().sum(-1)
    most = (bound(values, codec.value_bits, -1).square() * HEAD_DIM).squeeze(-1)
    assert (error <= most * (1 if codec.value_bits > 2 else 2)).all()  # at 2 bits what does not lean may be larger


def test_codec_none_keeps_every_bit() -> None:
    pages = adversarial_pages(0)
    keys, values = reference.decode_pages(
        reference.encode_pages(pages, -pages, codec_named("none")), codec_named("none")
    )
    assert torch.equal(keys, pages)
    assert torch.equal(values, -pages)


@pytest.mark.parametrize("bits", [2, 4])
def test_packing_is_undone_by_unpacking(bits: int) -> None:
    codes = torch.randint(2**bits, (5, 3, HEAD_DIM))
    packed = encoding.pack(codes, bits)
    assert packed.shape == (5, 3, HEAD_DIM * bits // 8)
    assert torch.equal(encoding.unpack(packed, bits), codes.float())


@pytest.mark.parametrize("size", [64, 128, 256])
def test_the_rotation_is_its_own_inverse(size: int) -> None:
    assert torch.allclose(hadamard(size) @ hadamard(size), torch.eye(size), atol=1e-6)


def test_clipping_pays_at_four_bits() -> None:
    values = torch.randn((8, PAGE_SIZE, HEAD_DIM), generator=torch.Generator().manual_seed(1))
    errors = []
    for ratios in ((1.0,), encoding.CLIP_RATIOS):
        codes, scale, zero = encoding.encode_asymmetric(values, -1, 4, ratios)
        errors.append((codes * scale.float()[..., None] + zero.float()[..., None] - values).square().mean())
    assert errors[1] < 0.95 * errors[0]


def test_what_2_bits_lose_has_nothing_in_common_with_the_values() -> None:
    values = torch.randn((8, PAGE_SIZE, HEAD_DIM), generator=torch.Generator().manual_seed(2)) + 0.5
    _, decoded = reference.decode_pages(
        reference.encode_pages(values, values, codec_named("k4v2")), codec_named("k4v2")
    )
    lost, deviation = values - decoded, values - values.mean(-1, keepdim=True)
    assert ((lost * deviation).sum(-1) / deviation.square().sum(-1)).abs().max() < 5e-3
    assert lost.mean(-1).abs().max() < 5e-3


def test_a_cache_of_fp16_saturates() -> None:
    layout = PageLayout(1, 1, HEAD_DIM, codec_named("int8"), torch.float16)
    pool = PagePool(layout, 1, 1)
    huge = torch.full((1, 1, HEAD_DIM), 1e6)
    reference.append(pool, 0, huge, -huge, torch.tensor([3]))
    assert pool.raw[0, 0, 0, 0, 3, 0] == 65504
    assert pool.raw[0, 0, 0, 1, 3, 0] == -65504


@pytest.mark.parametrize("codec", CODECS)
def test_sealing_one_layer_leaves_the_others_alone(codec: str) -> None:
    pool = random_pool(codec, num_pages=3)
    before = pool.sealed.clone()
    reference.seal(pool, slice(1, 2), torch.tensor([2]), torch.tensor([0]))
    assert torch.equal(pool.sealed[:, 0], before[:, 0])
    assert torch.equal(pool.sealed[0, 1], before[2, 1])


def test_copied_pages_come_back_as_they_were() -> None:
    pool = random_pool("int4", num_pages=6)
    expected, page_ids = pool.sealed.clone(), torch.tensor([4, 1])
    buffer = torch.empty((2, *pool.sealed.shape[1:]), dtype=torch.uint8)
    reference.copy_pages(pool.sealed, page_ids, buffer, to_buffer=True)
    pool.sealed[page_ids] = 0
    reference.copy_pages(pool.sealed, page_ids, buffer, to_buffer=False)
    assert torch.equal(pool.sealed, expected)


def test_raw_bits_mean_no_compression() -> None:
    assert {codec.name for codec in CODECS.values() if codec.key_bits == RAW_BITS} == {"none"}
