"""Which kernels are compiled, for which arguments: those that a bf16 model launches them with.

Knows the kernels' arguments, not compilers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from folio_kernels import append, decode_attention, merge_attention, page_copy, prefill_attention, seal
from folio_kernels.layout import PAGE_SIZE, PageLayout
from folio_kernels.raw_attention import TOKENS_AT_ONCE

MODEL_TYPE = "bf16"
INTEGERS = frozenset(
    {
        "layer",
        "num_layers",
        "first_layer",
        "num_rows",
        "num_stretches",
        "stretch_pages",
        "page_words",
        "open_stride",
        "table_stride",
    }
)
"""Scalars of 32 bits about which nothing is known."""

STRIDES = frozenset(
    {
        "query_token_stride",
        "query_head_stride",
        "key_token_stride",
        "key_head_stride",
        "value_token_stride",
        "value_head_stride",
    }
)
"""Scalars of 32 bits that are multiples of 16, as head sizes are."""

INDICES = frozenset({"p_query_starts", "p_lengths", "p_num_raw", "p_tables", "p_open_pages"})
LONG_INDICES = frozenset({"p_slots", "p_raw_pages", "p_sealed_pages", "p_page_ids", "p_pages", "p_buffer"})
FLOATS = frozenset({"p_partial", "p_lse", "p_rotation", "p_guide"})
HALVES = frozenset({"p_key_scale", "p_key_zero", "p_value_scale", "p_value_zero"})


@dataclass(frozen=True)
class KernelCase:
    """One kernel for one codec.

    Attributes:
        name: the kernel's module, and what sets it apart there.
        codec: the codec's name, or "any".
        kernel: a function of the Triton language.
        constants: its compile-time arguments by name.
        num_warps, is_contracting: how it is launched.
        loop_elements: keys and values that one round of the inner loop reads, counted in numbers, and in prefill once
            for each 64 queries that share them; None where there is no such loop.
        code_type: of sealed pages.
    """

    name: str
    codec: str
    kernel: Any
    constants: dict[str, Any]
    num_warps: int = 4
    is_contracting: bool = True
    loop_elements: int | None = None
    code_type: str = "u8"

    def types(self) -> dict[str, str]:
        """The type of every argument, in the compiler's notation."""
        return {name: self._type(name) for name in self.kernel.arg_names}

    def _type(self, name: str) -> str:
        if name in self.constants:
            return "constexpr"
        if name in INTEGERS | STRIDES:
            return "i32"
        if name == "scale":
            return "fp32"
        pointers = {"i32": INDICES, "i64": LONG_INDICES, "fp32": FLOATS, "fp16": HALVES}
        found = next((kind for kind, names in pointers.items() if name in names), MODEL_TYPE)
        return f"*{self.code_type}" if name in {"p_sealed", "p_key_codes", "p_value_codes"} else f"*{found}"


def cases_of(layout: PageLayout, num_heads: int) -> Iterator[KernelCase]:
    """The kernels that read or write one codec's pages, in the order a step runs them."""
    codec, dim = layout.codec, layout.head_dim
    code_type = "u8" if codec.compresses else MODEL_TYPE
    rotation = {} if codec.rotates_values else {"p_rotation": None}
    decoding = decode_attention.decode_constants(layout, num_heads)
    yield KernelCase("append", codec.name, append.append_kernel, append.append_constants(layout) | rotation, 4, False)
    sealing = seal.seal_constants(layout) | _missing_fields(layout)
    yield KernelCase(
        "seal",
        codec.name,
        seal.seal_kernel,
        sealing | {"p_guide": None},
        seal.NUM_WARPS[dim],
        is_contracting=False,
        code_type=code_type,
    )
    if codec.guides_keys:
        yield KernelCase("seal_guided", codec.name, seal.seal_kernel, sealing, seal.NUM_WARPS[dim], False)
    yield KernelCase(
        "decode_attention",
        codec.name,
        decode_attention.decode_kernel,
        decoding,
        num_warps=decode_attention.NUM_WARPS[dim],
        loop_elements=2 * dim * (PAGE_SIZE if codec.compresses else TOKENS_AT_ONCE),
        code_type=code_type,
    )
    merging = merge_attention.merge_constants(decoding) | rotation
    yield KernelCase("merge_attention", codec.name, merge_attention.merge_kernel, merging)
    yield KernelCase(
        "prefill_attention",
        codec.name,
        prefill_attention.prefill_kernel,
        prefill_attention.prefill_constants(layout, num_heads) | rotation,
        num_warps=prefill_attention.num_warps(layout, num_heads),
        loop_elements=2 * PAGE_SIZE * dim * prefill_attention.heads_at_once(layout, num_heads),
        code_type=code_type,
    )


def copy_case() -> KernelCase:
    """The kernel that copies pages, which are bytes to it."""
    constants = {"TO_BUFFER": True, "BLOCK": page_copy.BLOCK_WORDS}
    return KernelCase("page_copy", "any", page_copy.copy_pages_kernel, constants, 4, False)


def _missing_fields(layout: PageLayout) -> dict[str, None]:
    names = ("key_scale", "key_zero", "value_scale", "value_zero")
    return {f"p_{name}": None for name in names if name not in layout.fields}


def raw_dtype() -> torch.dtype:
    """What raw pages hold in the report."""
    return torch.bfloat16
