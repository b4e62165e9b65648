"""How far a kernel's attention may be from the reference's in fp64, in one place."""

from __future__ import annotations

import torch

RELATIVE_ERROR = 4e-3
"""Of the root mean square of a head's output, whose entries are about alike: the kernels round queries times scales and
softmax weights to fp16, 2^-12 each, and the output once more; the largest of thousands of such errors is about four
times the usual one."""


def assert_close_to_reference(output: torch.Tensor, expected: torch.Tensor) -> None:
    """Compares `[tokens, heads, head_dim]` with float64 of the same shape; NaN is not close to anything."""
    difference = (output.double() - expected).abs()
    size = expected.square().mean(-1, keepdim=True).sqrt()
    assert not difference.isnan().any()
    assert (difference <= RELATIVE_ERROR * size).all(), f"largest relative error {(difference / size).max():.2e}"
