"""The memory format: what the docstring's table promises, and what is refused."""

from __future__ import annotations

import itertools

import pytest
import torch

from folio_kernels.codecs import CODECS, codec_named
from folio_kernels.layout import FIELD_ALIGNMENT, PAGE_SIZE, PageLayout

BYTES_PER_TOKEN = {
    "none": (256, 512, 1024),
    "int8": (132, 262, 522),
    "k8v4": (102, 200, 396),
    "int4": (72, 140, 276),
    "k4v2": (56, 108, 212),
}


@pytest.mark.parametrize("codec", CODECS)
def test_a_sealed_page_takes_the_bytes_that_the_table_states(codec: str) -> None:
    for head_dim, expected in zip((64, 128, 256), BYTES_PER_TOKEN[codec], strict=True):
        layout = PageLayout(1, 1, head_dim, codec_named(codec), torch.float16)
        assert layout.sealed_record_bytes / PAGE_SIZE == expected


@pytest.mark.parametrize("codec", CODECS)
def test_fields_are_aligned_and_do_not_overlap(codec: str) -> None:
    fields = list(PageLayout(3, 2, 64, codec_named(codec), torch.float16).fields.values())
    for field, following in itertools.pairwise(fields):
        assert field.offset + field.num_bytes <= following.offset
    assert all(field.offset % FIELD_ALIGNMENT == 0 for field in fields)


@pytest.mark.parametrize(("codec", "bound"), [("int8", 0.53), ("k8v4", 0.41), ("int4", 0.29)])
def test_sealed_pages_keep_within_their_share_of_fp16(codec: str, bound: float) -> None:
    layout = PageLayout(30, 3, 64, codec_named(codec), torch.float32)
    assert layout.sealed_page_bytes / layout.fp16_page_bytes <= bound


@pytest.mark.parametrize("head_dim", [32, 80, 512])
def test_a_head_size_without_kernels_is_refused_by_value(head_dim: int) -> None:
    with pytest.raises(ValueError, match=f"head_dim {head_dim}"):
        PageLayout(1, 1, head_dim, codec_named("int8"), torch.float16)


def test_an_unknown_codec_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"fp3.*none, int8, k8v4, int4, k4v2"):
        codec_named("fp3")
