"""Attention over an uncompressed cache in bf16, by whatever fast kernels this machine has.

A baseline is made ready outside of the timing (planned, its cache laid out as it likes it best) and then runs one
layer's decode step. One that cannot run here says why, and so does one whose result is wrong.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from folio_kernels.layout import PAGE_SIZE

from .cases import CACHE_DTYPE, HeadShape, Workload

WORKSPACE_BYTES = 256 * 2**20
"""What FlashInfer keeps its partial results in."""

LARGEST_ERROR = 0.02
"""Of a baseline's output, root mean square over that of the right one: bf16 keeps 8 bits, which makes 0.004."""


class UnavailableError(Exception):
    """This baseline does not run here; the text says why."""


@dataclass(frozen=True)
class Cache:
    """One layer's uncompressed cache and a step's queries.

    Attributes:
        query: `[sequences, heads, head_dim]`.
        keys, values: `[sequences, longest, kv_heads, head_dim]`; what lies past a sequence's length is not read.
        lengths: `[sequences]` int32.
        is_ragged: whether the lengths differ.
    """

    query: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    lengths: torch.Tensor
    is_ragged: bool


Work = Callable[[], torch.Tensor]
"""Runs the step; returns `[sequences, heads, head_dim]`."""


def random_cache(shape: HeadShape, workload: Workload, device: torch.device) -> Cache:
    """A cache of noise."""
    history = (len(workload.lengths), max(workload.lengths), shape.num_kv_heads, shape.head_dim)
    return Cache(
        query=torch.randn((history[0], shape.num_heads, shape.head_dim), dtype=CACHE_DTYPE, device=device),
        keys=torch.randn(history, dtype=CACHE_DTYPE, device=device),
        values=torch.randn(history, dtype=CACHE_DTYPE, device=device),
        lengths=torch.tensor(workload.lengths, dtype=torch.int32, device=device),
        is_ragged=workload.is_ragged,
    )


def expected_output(cache: Cache) -> torch.Tensor:
    """The same attention in float32, one sequence after the other: `[sequences, heads, head_dim]`."""
    outputs = []
    for sequence, length in enumerate(cache.lengths.tolist()):
        keys, values = (part[sequence, :length].float().transpose(0, 1) for part in (cache.keys, cache.values))
        query = cache.query[sequence].float().unflatten(0, (keys.shape[0], -1))
        weights = (query @ keys.transpose(1, 2) * query.shape[-1] ** -0.5).softmax(-1)
        outputs.append((weights @ values).flatten(0, 1))
    return torch.stack(outputs)


def sdpa(backend: SDPBackend, cache: Cache) -> Work:
    """One of the backends of torch's attention."""
    if cache.is_ragged:
        raise UnavailableError("has no ragged batch")
    query = cache.query.unsqueeze(2)
    keys, values = cache.keys.transpose(1, 2).contiguous(), cache.values.transpose(1, 2).contiguous()

    def work() -> torch.Tensor:
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(query, keys, values, enable_gqa=True).squeeze(2)

    return work


def flash_attention(module: str, cache: Cache) -> Work:
    """FlashAttention 2 or 3, over a cache with room for the longest sequence."""
    attend = _imported(module).flash_attn_with_kvcache
    query = cache.query.unsqueeze(1)

    def work() -> torch.Tensor:
        output = attend(query, cache.keys, cache.values, cache_seqlens=cache.lengths, causal=True)
        attended: torch.Tensor = output[0] if isinstance(output, tuple) else output
        return attended.squeeze(1)

    return work


def flash_infer(*, use_tensor_cores: bool, cache: Cache) -> Work:
    """FlashInfer, over pages in random order."""
    module = _imported("flashinfer")
    num_sequences, longest, num_kv_heads, head_dim = cache.keys.shape
    counts = (cache.lengths.long() + PAGE_SIZE - 1) // PAGE_SIZE
    capacity = -(-longest // PAGE_SIZE)
    places = torch.randperm(num_sequences * capacity, device=cache.keys.device).view(num_sequences, capacity)
    pages = torch.zeros(
        (num_sequences * capacity, 2, PAGE_SIZE, num_kv_heads, head_dim), dtype=CACHE_DTYPE, device=cache.keys.device
    )
    for part, tokens in enumerate((cache.keys, cache.values)):
        padded = tokens.new_zeros((num_sequences, capacity * PAGE_SIZE, num_kv_heads, head_dim))
        padded[:, :longest] = tokens
        pages[places.flatten(), part] = padded.unflatten(1, (capacity, PAGE_SIZE)).flatten(0, 1)
    workspace = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=cache.keys.device)
    wrapper = module.BatchDecodeWithPagedKVCacheWrapper(workspace, "NHD", use_tensor_cores=use_tensor_cores)
    wrapper.plan(
        torch.nn.functional.pad(counts.cumsum(0), (1, 0)).int(),
        torch.cat([row[:count] for row, count in zip(places, counts.tolist(), strict=True)]).int(),
        (cache.lengths - 1) % PAGE_SIZE + 1,
        cache.query.shape[1],
        num_kv_heads,
        head_dim,
        PAGE_SIZE,
        q_data_type=CACHE_DTYPE,
        kv_data_type=CACHE_DTYPE,
    )
    return partial(wrapper.run, cache.query, pages)


BASELINES: dict[str, Callable[[Cache], Work]] = {
    "SDPA flash": partial(sdpa, SDPBackend.FLASH_ATTENTION),
    "SDPA cuDNN": partial(sdpa, SDPBackend.CUDNN_ATTENTION),
    "SDPA efficient": partial(sdpa, SDPBackend.EFFICIENT_ATTENTION),
    "SDPA math": partial(sdpa, SDPBackend.MATH),
    "FlashAttention 2": partial(flash_attention, "flash_attn"),
    "FlashAttention 3": partial(flash_attention, "flash_attn_interface"),
    "FlashInfer": lambda cache: flash_infer(use_tensor_cores=False, cache=cache),
    "FlashInfer tensor cores": lambda cache: flash_infer(use_tensor_cores=True, cache=cache),
}


def checked(make: Callable[[Cache], Work], cache: Cache) -> Work:
    """A baseline made ready and seen to be right.

    Raises:
        UnavailableError: it is not installed, does not serve this case, fails, or computes something else.
    """
    try:
        work = make(cache)
        output = work()
        torch.cuda.synchronize()
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        raise UnavailableError(f"failed: {first_line}") from error
    relative_error = error_of(output, expected_output(cache))
    if not relative_error <= LARGEST_ERROR:
        raise UnavailableError(f"is off by {relative_error:.1%}")
    return work


def error_of(output: torch.Tensor, expected: torch.Tensor) -> float:
    """The root mean square of what an output is off by, over that of what it should be."""
    return ((output.float() - expected).square().mean() / expected.square().mean()).sqrt().item()


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UnavailableError("is not installed") from error
