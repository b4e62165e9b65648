"""Compiles every kernel ahead of time and prints what the compiler made of it; a GPU is not needed.

The last column counts the thread-instructions that the inner loop of attention takes per key or value number it reads,
in prefill for 64 queries.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict

import triton

from folio_kernels.codecs import CODECS, codec_named
from folio_kernels.layout import HEAD_DIMS, PageLayout

from .cases import KernelCase, cases_of, copy_case, raw_dtype
from .disassembly import THREADS_PER_WARP, Compiled, compiled

NUM_LAYERS, NUM_KV_HEADS = 32, 8
ARCHITECTURES = (80, 90, 100)
KERNELS = ("append", "seal", "seal_guided", "decode_attention", "merge_attention", "prefill_attention", "page_copy")


def main() -> None:
    """Runs what the command line asks for; the last line is JSON."""
    options = _parse()
    print(f"{'sm':>4} {'kernel':18}{'codec':7}{'registers':>10}{'shared':>8}{'spilled':>8}{'instructions':>14}")
    figures = []
    for architecture in options.architectures:
        for case in _chosen(options):
            result = compiled(case, architecture)
            per_element = instructions_per_element(case, result)
            shown = "-" if per_element is None else f"{per_element:.2f}"
            print(
                f"{architecture:4} {case.name:18}{case.codec:7}{result.registers:10}{result.shared_bytes:8}"
                f"{result.spilled_bytes:8}{shown:>14}",
                flush=True,
            )
            figures.append(
                {
                    "architecture": architecture,
                    "kernel": case.name,
                    "codec": case.codec,
                    **asdict(result),
                    "instructions_per_element": per_element,
                }
            )
    print(json.dumps({"head_dim": options.head_dim, "group": options.group, "kernels": figures}))


def instructions_per_element(case: KernelCase, result: Compiled) -> float | None:
    """Thread-instructions of the inner loop over the numbers that one round of it reads."""
    if case.loop_elements is None or result.loop_instructions is None:
        return None
    return round(result.loop_instructions * case.num_warps * THREADS_PER_WARP / case.loop_elements, 3)


def _chosen(options: argparse.Namespace) -> Iterator[KernelCase]:
    for name in options.codecs:
        layout = PageLayout(NUM_LAYERS, NUM_KV_HEADS, options.head_dim, codec_named(name), raw_dtype())
        yield from (case for case in cases_of(layout, NUM_KV_HEADS * options.group) if case.name in options.kernels)
    if "page_copy" in options.kernels:
        yield copy_case()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make kernel-report", description=__doc__)
    parser.add_argument("--architectures", nargs="+", type=int, default=ARCHITECTURES, help="80 for sm_80, ...")
    parser.add_argument("--codecs", nargs="+", choices=CODECS, default=list(CODECS))
    parser.add_argument("--kernels", nargs="+", choices=KERNELS, default=KERNELS)
    parser.add_argument("--head-dim", type=int, choices=HEAD_DIMS, default=128)
    parser.add_argument("--group", type=int, default=4, help="query heads per KV head")
    options = parser.parse_args()
    if triton.knobs.runtime.interpret:
        parser.error("TRITON_INTERPRET is set: the kernels are interpreted, not compiled")
    return options


if __name__ == "__main__":
    main()
