"""Pages that break careless quantising, as a Hypothesis strategy, and what a codec may lose on them."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from folio_kernels.layout import PAGE_SIZE

LARGEST = 65504.0
"""The largest number of fp16."""
SMALLEST = 2**-24
"""The smallest one: below it a scale is zero, and all that it scales."""
ROUNDING = 2**-10
"""Relative error of a scale or zero kept in fp16, and then some."""

ODDITIES = (
    "constant channel",
    "constant token",
    "huge outlier",
    "denormals",
    "both ends",
    "two values",
    "zeros",
    "large offset",
)


@st.composite
def adversarial_pages(draw: st.DrawFn, head_dim: int) -> torch.Tensor:
    """A page `[page_size, head_dim]` of fp16 noise with any mixture of oddities."""
    seed = draw(st.integers(0, 2**32))
    page = torch.randn((PAGE_SIZE, head_dim), generator=torch.Generator().manual_seed(seed))
    for oddity in draw(st.lists(st.sampled_from(ODDITIES), max_size=3, unique=True)):
        token, dim = draw(st.integers(0, PAGE_SIZE - 1)), draw(st.integers(0, head_dim - 1))
        _disturb(page, oddity, token, dim)
    return page.clamp(-LARGEST, LARGEST).half()


def _disturb(page: torch.Tensor, oddity: str, token: int, dim: int) -> None:
    if oddity == "constant channel":
        page[:, dim] = 7.25
    elif oddity == "constant token":
        page[token] = -3.5
    elif oddity == "huge outlier":
        page[token, dim] = 3e4
    elif oddity == "denormals":
        page *= 1e-7
    elif oddity == "both ends":
        page[token:] = torch.sign(page[token:]) * LARGEST
    elif oddity == "two values":
        page[:, : dim + 1] = torch.sign(page[:, : dim + 1])
    elif oddity == "large offset":
        page[:, dim:] += 1000.0
    else:
        page[: token + 1] = 0.0


def largest_error(x: torch.Tensor, bits: int, dim: int) -> torch.Tensor:
    """What an entry may lose without clipping, per range along `dim`: half a step, and what fp16 rounds."""
    low, high = x.amin(dim, keepdim=True), x.amax(dim, keepdim=True)
    largest = x.abs().amax(dim, keepdim=True)
    if bits == 8:
        return largest / 127 * 0.5 + 127 * SMALLEST + largest * ROUNDING
    levels = 2**bits - 1
    return (high - low) / levels * 0.5 + levels * SMALLEST + (high - low + largest) * ROUNDING
