"""Reads what the compiler made: a kernel's resources, and the instructions of its inner loop.

Knows the text that NVIDIA's tools print (they come with the Triton language), not what a kernel is for.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from .cases import STRIDES, KernelCase
from .loops import loops

THREADS_PER_WARP = 32


@dataclass(frozen=True)
class Compiled:
    """A kernel for one architecture.

    Attributes:
        registers: a thread's.
        shared_bytes: a program's.
        spilled_bytes: a thread's memory for what registers have no room for.
        loop_instructions: of the inner loop, the one with exponentials and most matrix products; None without one.
    """

    registers: int
    shared_bytes: int
    spilled_bytes: int
    loop_instructions: int | None


def compiled(case: KernelCase, architecture: int) -> Compiled:
    """Compiles a kernel for an architecture (90 for sm_90); no GPU is needed."""
    types = case.types()
    names = list(types)
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in names if _is_aligned(name, types[name])}
    source = ASTSource(case.kernel, types, constexprs=case.constants, attrs=aligned)
    options = {"num_warps": case.num_warps, "enable_fp_fusion": case.is_contracting}
    kernel = triton.compile(source, target=GPUTarget("cuda", architecture, THREADS_PER_WARP), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage = _tool("cuobjdump", "-res-usage", file.name)
        instructions = _tool("nvdisasm", "-c", file.name)
    return Compiled(
        registers=_resource(usage, "REG"),
        shared_bytes=kernel.metadata.shared,
        spilled_bytes=_resource(usage, "STACK") + _resource(usage, "LOCAL"),
        loop_instructions=inner_loop_length(instructions),
    )


def inner_loop_length(disassembly: str) -> int | None:
    """Instructions of the loop with exponentials and most matrix products; None where there is none."""
    found = [loop for loop in loops(disassembly) if any("MUFU.EX2" in line for line in loop)]
    best = max(found, key=lambda loop: (sum("MMA" in line for line in loop), -len(loop)), default=None)
    return None if best is None else len(best)


def _is_aligned(name: str, kind: str) -> bool:
    """Whether an argument is a multiple of 16: torch's pointers are, and strides of heads."""
    return kind.startswith("*") or name in STRIDES


def _resource(usage: str, name: str) -> int:
    return sum(int(amount) for amount in re.findall(rf"\b{name}:(\d+)", usage))


def _tool(name: str, *arguments: str) -> str:
    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    return subprocess.run([path, *arguments], check=True, capture_output=True, text=True).stdout
