"""The sealing kernel: the reference's bytes, whatever the pages hold, and nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from folio_kernels import encoding, reference
from folio_kernels.codecs import CODECS, Codec, codec_named
from folio_kernels.layout import PAGE_SIZE, PageLayout
from folio_kernels.pool import PagePool
from folio_kernels.seal import seal
from tests.kernels.adversarial_pages import SMALLEST, adversarial_pages, largest_error
from tests.kernels.huge_memory import huge_tensor
from tests.kernels.test_key_guide import random_guide

OTHER_RANGES = 2e-3
"""Share of tokens whose clip search may choose another ratio, and of channels whose fitted range may be the next fp16
number: the two best lie within a rounding error of a sum."""
FITTING_ERROR = 2e-2
"""Sum of such channels' differences: a scale's last bit times the 8 steps from its zero to the middle of the range."""
OTHER_CODES = 1e-4
"""Share of codes that may be the other one of two: the entry lies half-way between them, within a rounding error."""
LOSSY = [codec for codec in CODECS.values() if codec.compresses]


def noisy_pool(
    codec: str, head_dim: int, device: torch.device, *, num_pages: int = 5, is_guided: bool = False
) -> PagePool:
    """Three layers of two heads; raw pages hold noise, sealed ones bytes that mean nothing."""
    layout = PageLayout(3, 2, head_dim, codec_named(codec), torch.float16)
    pool = PagePool(layout, num_pages, num_pages, device, random_guide(3, 2, head_dim) if is_guided else None)
    pool.raw.copy_(torch.randn(pool.raw.shape, generator=torch.Generator().manual_seed(head_dim)))
    pool.sealed.fill_(0x7E)  # 0x7E7E is a NaN of fp16
    return pool


def sealed_by_reference(pool: PagePool, layers: slice, raw: torch.Tensor, sealed: torch.Tensor) -> PagePool:
    """Another pool, of the same bytes, on which the reference has done the work."""
    other = PagePool(pool.layout, pool.num_raw_pages, pool.num_sealed_pages, pool.raw.device, pool.key_guide)
    other.raw.copy_(pool.raw)
    other.sealed.copy_(pool.sealed)
    reference.seal(other, layers, raw, sealed)
    return other


def assert_same_codes(got: torch.Tensor, expected: torch.Tensor, bits: int) -> None:
    """Codes differ by at most one, and rarely."""
    difference = (encoding.codes_of(got, bits) - encoding.codes_of(expected, bits)).abs()
    assert difference.max() <= 1
    assert difference.mean() <= OTHER_CODES


def assert_sealed_alike(got: PagePool, expected: PagePool) -> None:
    """Every field of every record, within what the last bits of sums and quotients decide."""
    codec = got.layout.codec
    field = {name: (got.sealed_field(name), expected.sealed_field(name)) for name in got.layout.fields}
    for name in ("key_scale", "key_zero"):
        if name in field:
            differs = field[name][0].view(torch.int16) != field[name][1].view(torch.int16)
            assert differs.float().mean() <= (0 if got.key_guide is None else OTHER_RANGES)
            assert (field[name][0] - field[name][1])[differs].abs().nan_to_num(torch.inf).sum() <= FITTING_ERROR
    assert_same_codes(*field["key_codes"], codec.key_bits)
    same = torch.ones((*got.sealed.shape[:3], PAGE_SIZE), dtype=torch.bool, device=got.sealed.device)
    for name in ("value_scale", "value_zero"):
        if name in field:
            same &= field[name][0].view(torch.int16) == field[name][1].view(torch.int16)
    assert (~same).float().mean() <= (OTHER_RANGES if codec.value_bits < 8 else 0)
    got_codes, expected_codes = field["value_codes"]
    assert_same_codes(got_codes[same], expected_codes[same], codec.value_bits)


@pytest.mark.parametrize("head_dim", [64, 128, 256])
@pytest.mark.parametrize("codec", LOSSY, ids=lambda codec: codec.name)
def test_sealed_pages_are_the_references(codec: Codec, head_dim: int, device: torch.device) -> None:
    check_sealing(noisy_pool(codec.name, head_dim, device))


@pytest.mark.parametrize("head_dim", [64, 128, 256])
def test_keys_are_rounded_by_their_guide(head_dim: int, device: torch.device) -> None:
    check_sealing(noisy_pool("int4", head_dim, device, is_guided=True))


def check_sealing(pool: PagePool) -> None:
    """Seals two pages in two of three layers, beside pages of NaN, and compares all that there is."""
    device = pool.device
    raw, sealed, layers = torch.tensor([3, 0], device=device), torch.tensor([1, 4], device=device), slice(1, 3)
    pool.raw[[1, 2, 4]] = torch.nan
    expected = sealed_by_reference(pool, layers, raw, sealed)
    seal(pool, layers, raw, sealed)
    assert_sealed_alike(pool, expected)
    assert torch.equal(pool.sealed[[0, 2, 3]], expected.sealed[[0, 2, 3]])
    assert torch.equal(pool.sealed[:, 0], expected.sealed[:, 0])


def test_codec_none_keeps_every_bit(device: torch.device) -> None:
    pool = noisy_pool("none", 128, device)
    pages = torch.tensor([2, 4], device=device)
    seal(pool, slice(None), pages, pages.flip(0))
    assert torch.equal(pool.sealed[pages.flip(0)].view(torch.float16).view_as(pool.raw[pages]), pool.raw[pages])


@pytest.mark.parametrize("codec", LOSSY, ids=lambda codec: codec.name)
@pytest.mark.parametrize("by", ["reference", "kernel"])
@given(data=st.data())
@settings(deadline=None, max_examples=12)
def test_what_is_decoded_lies_within_the_codecs_bound(
    codec: Codec, by: str, device: torch.device, data: st.DataObject
) -> None:
    pool = PagePool(PageLayout(1, 1, 64, codec, torch.float16), 1, 1, device)
    keys, values = (data.draw(adversarial_pages(64)).to(device) for _ in range(2))
    pool.raw[0, 0, 0, 0], pool.raw[0, 0, 0, 1] = keys, values
    first = torch.zeros(1, dtype=torch.int64, device=device)
    (seal if by == "kernel" else reference.seal)(pool, slice(None), first, first)
    decoded_keys, decoded_values = (part[0, 0] for part in reference.read_sealed(pool, 0, first))
    assert ((decoded_keys - keys).abs() <= largest_error(keys.float(), codec.key_bits, -2)).all()
    squared_error = (decoded_values - values).square().sum(-1)
    without_clipping = largest_error(values.float(), codec.value_bits, -1).square().squeeze(-1) * 64
    assert (squared_error <= without_clipping * (1 if codec.value_bits > 2 else 2)).all()  # see `unshrunk`


@given(data=st.data())
@settings(deadline=None, max_examples=12)
def test_no_clip_search_finds_less_error_than_the_references(device: torch.device, data: st.DataObject) -> None:
    pool = PagePool(PageLayout(1, 1, 64, codec_named("k4v2"), torch.float16), 1, 1, device)
    pool.raw[0, 0, 0] = data.draw(adversarial_pages(64)).to(device)
    first = torch.zeros(1, dtype=torch.int64, device=device)
    expected = sealed_by_reference(pool, slice(None), first, first)
    seal(pool, slice(None), first, first)
    values = pool.raw[0, 0, 0, 1].double()
    errors = [(reference.read_sealed(each, 0, first)[1][0, 0] - values).square().sum(-1) for each in (pool, expected)]
    # A scale may be the next fp16 number; among denormals that is another number altogether.
    assert torch.allclose(errors[0], errors[1], rtol=2**-7, atol=64 * (3 * SMALLEST) ** 2)


def test_pages_beyond_what_32_bits_count_are_sealed(tmp_path: Path) -> None:
    layout = PageLayout(32, 8, 128, codec_named("int4"), torch.float16)
    pool = PagePool(layout, 1, 1)
    num_raw, num_sealed = 2**32 // layout.raw_page_bytes + 2, 2**31 // layout.sealed_page_bytes + 2
    pool.raw = huge_tensor(tmp_path, (num_raw, *pool.raw.shape[1:]), torch.float16)
    pool.sealed = huge_tensor(tmp_path, (num_sealed, *pool.sealed.shape[1:]), torch.uint8)
    assert min(pool.raw[:-1].numel(), pool.sealed[:-1].numel()) > 2**31
    pool.raw[-1, -1] = torch.randn(pool.raw.shape[2:])
    layers, raw, sealed = slice(31, 32), torch.tensor([num_raw - 1]), torch.tensor([num_sealed - 1])
    seal(pool, layers, raw, sealed)
    decoded, _ = reference.read_sealed(pool, 31, sealed)
    keys = pool.raw[-1, -1, :, 0].float()
    assert ((decoded[0] - keys).abs() <= largest_error(keys, 4, -2)).all()
