"""Compiles the C++ sources of `cpu_kernels/` for this machine and calls it on a pool's memory.

Knows addresses, strides and structs, and that torch's own builder keeps what it has built. Does not
know what a kernel computes.
"""

from __future__ import annotations

import ctypes
from hashlib import sha256
from pathlib import Path

import torch

from folio_kernels.layout import PageLayout
from folio_kernels.pool import AttentionBatch, PagePool

SOURCES = Path(__file__).with_name("cpu_kernels")

RAW_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""In the order of the source's `Dtype`."""

BUILD_FLAGS = ("-ftree-loop-vectorize", "-fassociative-math", "-fno-math-errno", "-ffp-contract=fast")
"""Vector instructions for plain loops, sums in any order, fused multiply-adds: the builder leaves them out."""


class _Pool(ctypes.Structure):
    """Mirrors the source's `Pool`."""

    _fields_ = [
        ("raw", ctypes.c_void_p),
        ("sealed", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("num_layers", "num_kv_heads", "head_dim", "raw_dtype")),
        *((name, ctypes.c_int64) for name in ("key_bits", "value_bits", "rotates_values", "record_bytes")),
        *((name, ctypes.c_int64) for name in ("key_codes", "value_codes", "key_scale", "key_zero")),
        *((name, ctypes.c_int64) for name in ("value_scale", "value_zero")),
    ]


class _Batch(ctypes.Structure):
    """Mirrors the source's `Batch`."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("num_sequences", "num_pages", "num_open_pages")),
        *((name, ctypes.c_void_p) for name in ("query_starts", "lengths", "page_tables", "page_kinds", "open_pages")),
    ]


class CpuLibrary:
    """The compiled kernels on one pool.

    Args:
        pool: on the CPU; its memory must not move.

    Raises:
        RuntimeError: there is no C++ compiler, or it fails; the text is its own.
    """

    def __init__(self, pool: PagePool) -> None:
        self._library = _build(_source())
        self._pool = pool  # keeps the memory that the struct points at
        self._pool_struct = _pool_struct(pool)
        self._batch: AttentionBatch | None = None
        self._batch_arrays: list[torch.Tensor] = []
        self._batch_struct = _Batch()

    def append(self, layer: int, key: torch.Tensor, value: torch.Tensor, slots: torch.Tensor) -> None:
        """See `Operations.append`."""
        key, value, slots = _rows(key), _rows(value), slots.long().contiguous()
        self._library.folio_append(
            ctypes.byref(self._pool_struct),
            ctypes.c_int64(layer),
            ctypes.c_int64(len(slots)),
            ctypes.c_void_p(slots.data_ptr()),
            *_address(key),
            *_address(value),
        )

    def attend(self, layer: int, query: torch.Tensor, batch: AttentionBatch, scale: float) -> torch.Tensor:
        """See `Operations.attend`; float32, contiguous."""
        query = _rows(query)
        output = torch.empty(query.shape)
        self._library.folio_attend(
            ctypes.byref(self._pool_struct),
            ctypes.byref(self._struct_of(batch)),
            ctypes.c_int64(layer),
            ctypes.c_float(scale),
            *_address(query),
            ctypes.c_int64(query.shape[1]),
            ctypes.c_void_p(output.data_ptr()),
        )
        return output

    def _struct_of(self, batch: AttentionBatch) -> _Batch:
        """The batch's struct, made at its first layer."""
        if self._batch is not batch:
            arrays = (batch.query_starts, batch.lengths, batch.page_tables, batch.page_kinds, batch.open_pages)
            self._batch_arrays = [array.int().contiguous() for array in arrays]
            self._batch_struct = _Batch(
                len(batch.lengths),
                batch.page_tables.shape[1],
                batch.open_pages.shape[1],
                *(array.data_ptr() for array in self._batch_arrays),
            )
            self._batch = batch
        return self._batch_struct


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers as float32 with heads of adjacent elements."""
    tensor = tensor.float()
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _address(rows: torch.Tensor) -> tuple[ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]:
    return ctypes.c_void_p(rows.data_ptr()), ctypes.c_int64(rows.stride(0)), ctypes.c_int64(rows.stride(1))


def _pool_struct(pool: PagePool) -> _Pool:
    layout: PageLayout = pool.layout
    names = ("key_codes", "value_codes", "key_scale", "key_zero", "value_scale", "value_zero")
    return _Pool(
        pool.raw.data_ptr(),
        pool.sealed.data_ptr(),
        layout.num_layers,
        layout.num_kv_heads,
        layout.head_dim,
        RAW_DTYPES.index(layout.raw_dtype),
        layout.codec.key_bits,
        layout.codec.value_bits,
        int(layout.codec.rotates_values),
        layout.sealed_record_bytes,
        *(layout.fields[name].offset if name in layout.fields else -1 for name in names),
    )


def _source() -> str:
    """A source that includes ours; their digest in it makes the builder notice a change."""
    digest = sha256(b"".join(path.read_bytes() for path in sorted(SOURCES.iterdir()))).hexdigest()
    return f'// {digest}\n#include "{SOURCES}/kernels.cpp"\n'


def _build(source: str) -> ctypes.CDLL:
    """The shared library, from torch's cache or freshly compiled.

    It is the builder of `torch.compile`: the compiler, the flags for this processor, the lock and the place are the
    ones that an installation of torch is known to work with. It is not public; torch is pinned.
    """
    from torch._inductor.codecache import CppCodeCache  # noqa: PLC0415 - a second's import, for CPUs alone

    library: ctypes.CDLL = CppCodeCache.load(source, extra_flags=BUILD_FLAGS)
    library.folio_append.restype = library.folio_attend.restype = None
    return library
