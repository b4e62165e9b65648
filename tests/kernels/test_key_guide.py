"""Keys encoded for the queries: the order of GPTQ, small moves, and products that hardly change."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from folio_kernels import reference
from folio_kernels.codecs import codec_named
from folio_kernels.cpu_operations import CpuOperations
from folio_kernels.encoding import encode_asymmetric
from folio_kernels.key_guide import STAGES, attention_weights, fitted_ranges, guide_for, guided_codes, stages
from folio_kernels.layout import PAGE_SIZE, PageLayout
from folio_kernels.mixed_operations import MixedOperations
from folio_kernels.mixed_pool import MixedLayout, MixedPool
from folio_kernels.pool import PagePool
from tests.kernels.adversarial_pages import ROUNDING, SMALLEST, adversarial_pages, largest_error

INT4 = codec_named("int4")


def random_guide(*shape: int, seed: int = 0) -> torch.Tensor:
    """What queries with a mean of about their spread make: `[*shape[:-1], 2, head_dim]`."""
    generator = torch.Generator().manual_seed(seed)
    return guide_for(torch.randn(shape, generator=generator), torch.rand(shape, generator=generator) + 0.1)


def decoded_keys(keys: torch.Tensor, guide: torch.Tensor | None) -> torch.Tensor:
    """What is read of keys after sealing."""
    return reference.decode_pages(reference.encode_pages(keys, keys, INT4, guide), INT4)[0]


@pytest.mark.parametrize("head_dim", [64, 128, 256])
def test_stages_are_all_dims_once(head_dim: int) -> None:
    dims = [dim for stage in stages(head_dim) for dim in range(head_dim)[stage]]
    assert sorted(dims) == list(range(head_dim))
    assert len(list(stages(head_dim))) == STAGES


def test_each_dim_moves_to_where_the_rest_makes_up_best_for_what_was_lost() -> None:
    """With one dim a stage, against the least squares that GPTQ solves at each dim."""
    generator = torch.Generator().manual_seed(1)
    mean, variance, key = (torch.randn(STAGES, generator=generator, dtype=torch.float64) for _ in range(3))
    guide = guide_for(mean, variance.square())
    spread = (variance.square() + variance.square().mean()) / 2
    weights = torch.outer(mean, mean) + torch.diag(spread)
    order = [dim for stage in stages(STAGES) for dim in range(STAGES)[stage]]
    scale, error = 2.0, torch.zeros(STAGES, dtype=torch.float64)  # coarse enough to be moved by less than half a step
    for index, dim in enumerate(order):
        done, left = order[:index], order[index:]
        best = torch.linalg.solve(weights[left][:, left], -weights[left][:, done] @ error[done])[0]
        assert best.abs() < scale / 2
        error[dim] = torch.round((key[dim] + best) / scale) * scale - key[dim]
    scales = torch.full((STAGES,), scale, dtype=torch.float16)
    codes = guided_codes(key.float().unsqueeze(0) + 14, scales, torch.zeros_like(scales), 4, guide)[0]
    assert torch.equal(codes * scale - 14, (key + error).float())


def ranges_of(keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Nearest codes, scales and zeros, as they are before a guide."""
    return encode_asymmetric(keys.float(), -2, INT4.key_bits, (1.0,))


@given(page=adversarial_pages(64), seed=st.integers(0, 99))
@settings(deadline=None)
def test_a_key_moves_by_a_step_at_most(page: torch.Tensor, seed: int) -> None:
    _, scale, zero = ranges_of(page)
    codes = guided_codes(page.float(), scale, zero, INT4.key_bits, random_guide(64, seed=seed))
    assert 0 <= codes.min() <= codes.max() < 16
    lost = (codes * scale.float() + zero.float() - page).abs()
    assert (lost <= 3 * largest_error(page.float(), INT4.key_bits, -2)).all()


def weighted_error(
    keys: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, guide: torch.Tensor
) -> torch.Tensor:
    """What each channel loses, `[..., head_dim]`, tokens weighed by the attention they get."""
    lost = codes * scale.double().unsqueeze(-2) + zero.double().unsqueeze(-2) - keys
    weights: torch.Tensor = attention_weights(keys.float(), guide)
    return (weights / weights.sum(-2, keepdim=True) * lost.square()).sum(-2)


@given(page=adversarial_pages(64), seed=st.integers(0, 99))
@settings(deadline=None)
def test_a_fitted_range_loses_no_more_of_what_is_read(page: torch.Tensor, seed: int) -> None:
    guide, (codes, scale, zero) = random_guide(64, seed=seed), ranges_of(page)
    before = weighted_error(page, codes, scale, zero, guide)
    after = weighted_error(page, codes, *fitted_ranges(page.float(), codes, scale, zero, guide), guide)
    rounding = (page.float().abs().amax(-2) * 2 * ROUNDING + 15 * SMALLEST).square()
    assert (after <= before * 1.01 + rounding).all()


def test_what_the_mean_query_reads_is_kept_best() -> None:
    keys, mean = torch.randn((PAGE_SIZE, 64)), torch.zeros(64)
    mean[5] = 40.0  # reads the tokens whose fifth dim is largest, whatever their others
    guide, (codes, scale, zero) = guide_for(mean, torch.ones(64)), ranges_of(keys)
    ranges = fitted_ranges(keys, codes, scale, zero, guide)
    before, after = (weighted_error(keys, codes, *each, guide).mean() for each in ((scale, zero), ranges))
    assert after < 0.9 * before


def test_products_with_the_mean_query_hardly_change() -> None:
    mean, keys = torch.randn(128), torch.randn((20, PAGE_SIZE, 128))
    guide = guide_for(mean, torch.full((128,), 0.1))
    nearest, guided = (((decoded_keys(keys, by) - keys) @ mean).square().mean() for by in (None, guide))
    assert guided < 0.2 * nearest  # one stage of eight is left to itself


def test_without_a_mean_query_every_key_goes_to_the_nearest_code() -> None:
    keys = torch.randn((3, PAGE_SIZE, 64))
    codes, scale, zero = ranges_of(keys)
    assert torch.equal(
        guided_codes(keys, scale, zero, INT4.key_bits, guide_for(torch.zeros(64), torch.zeros(64))), codes
    )


def guided_pool(guide: torch.Tensor) -> PagePool:
    """Three layers of two heads, raw pages of noise."""
    pool = PagePool(PageLayout(3, 2, 64, INT4, torch.float16), 4, 4, key_guide=guide)
    pool.raw.copy_(torch.randn(pool.raw.shape, generator=torch.Generator().manual_seed(2)))
    return pool


def test_each_layer_and_head_has_its_own_guide() -> None:
    guide, first = random_guide(3, 2, 64), torch.tensor([0])
    guided, others = guided_pool(guide), guided_pool(guide.flip(0, 1))
    for pool in (guided, others):
        reference.seal(pool, slice(None), first, first)
    expected = reference.encode_pages(guided.raw[0, :, :, 0], guided.raw[0, :, :, 1], INT4, guide)["key_codes"]
    assert torch.equal(guided.sealed_field("key_codes")[0], expected)
    assert not torch.equal(others.sealed_field("key_codes")[0], expected)


def test_layers_of_a_mixed_pool_keep_their_guides() -> None:
    guide, first = random_guide(3, 2, 64), torch.tensor([0])
    layout = MixedLayout(2, 64, (INT4, codec_named("k8v4"), INT4), torch.float16)
    pool, alone = MixedPool(layout, 4, 4, key_guide=guide), guided_pool(guide)
    for part, members in zip(pool.parts, layout.parts, strict=True):
        part.raw.copy_(alone.raw[:, list(members.layers)])
    MixedOperations(pool, [CpuOperations(part, compiled=False) for part in pool.parts]).seal(slice(None), first, first)
    reference.seal(alone, slice(None), first, first)
    assert torch.equal(pool.parts[0].sealed[0], alone.sealed[0, [0, 2]])
