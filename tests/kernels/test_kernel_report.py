"""What the compiler makes of the kernels: they compile without a GPU, spill nothing and stay within their counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from benchmarks.report.disassembly import inner_loop_length
from folio_kernels.codecs import CODECS

LARGEST_COUNT = {"none": 2.5, "int8": 2.0, "k8v4": 2.0, "int4": 1.8, "k4v2": 1.8}
"""Thread-instructions per number read, of decode attention for sm_90, head_dim 128 and 4 query heads per KV head."""

DISASSEMBLY = """
.L_x_0:
        /*0010*/                   HMMA.16816.F32 R4, R8, R10, R4 ;
        /*0020*/                   MUFU.EX2 R5, R5 ;
.L_x_1:
        /*0030*/                   FADD R6, R6, R7 ;
        /*0040*/               @P0 BRA `(.L_x_1) ;
        /*0050*/               @P1 BRA `(.L_x_0) ;
        /*0060*/                   BRA `(.L_x_2) ;
.L_x_2:
        /*0070*/                   EXIT ;
"""

WAITING = """
.L_x_0:
        /*0010*/                   UTCHMMA gdesc[UR8], gdesc[UR10], tmem[UR4], tmem[UR6], idesc[UR7] ;
        /*0020*/              @!P0 BRA `(.L_x_2) ;
.L_x_1:
        /*0030*/                   MUFU.EX2 R5, R5 ;
        /*0040*/               @P1 BRA `(.L_x_0) ;
        /*0050*/                   STG.E.128 [R2.64], R4 ;
        /*0060*/                   EXIT ;
.L_x_2:
        /*0070*/                   SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [R2], R3 ;
        /*0080*/               @P0 BRA `(.L_x_1) ;
        /*0090*/                   BRA `(.L_x_2) ;
"""


def reported(*arguments: str) -> dict[str, Any]:
    """The report's last line. Another process: in this one kernels are interpreted."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "benchmarks.report", *arguments]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def test_decode_attention_spills_nothing_and_keeps_its_count() -> None:
    report = reported("--architectures", "90", "--kernels", "decode_attention")
    counts = {kernel["codec"]: kernel["instructions_per_element"] for kernel in report["kernels"]}
    assert [kernel["spilled_bytes"] for kernel in report["kernels"]] == [0] * len(CODECS)
    assert {codec: count for codec, count in counts.items() if count > LARGEST_COUNT[codec]} == {}


def test_decode_attention_spills_nothing_at_head_dim_64() -> None:
    report = reported("--head-dim", "64", "--architectures", "90", "--codecs", "k8v4", "--kernels", "decode_attention")
    assert [kernel["spilled_bytes"] for kernel in report["kernels"]] == [0]


def test_merging_spills_nothing() -> None:
    report = reported("--architectures", "90", "--codecs", "int4", "--kernels", "merge_attention")
    assert [kernel["spilled_bytes"] for kernel in report["kernels"]] == [0]


@pytest.mark.parametrize(
    ("architectures", "codecs"), [(["80"], list(CODECS)), (["90", "100"], ["int4"])], ids=["sm_80", "sm_90 and sm_100"]
)
def test_prefill_attention_spills_nothing(architectures: list[str], codecs: list[str]) -> None:
    """All codecs on the architecture that leaves fewest registers to spare."""
    report = reported("--architectures", *architectures, "--codecs", *codecs, "--kernels", "prefill_attention")
    assert len(report["kernels"]) == len(architectures) * len(codecs)
    assert [kernel for kernel in report["kernels"] if kernel["spilled_bytes"]] == []


@pytest.mark.parametrize(
    ("architecture", "head_dim", "group", "codec"),
    [(80, 256, 4, "int8"), (80, 256, 4, "none"), (80, 128, 3, "k8v4"), (100, 64, 3, "int8")],
)
def test_prefill_attention_spills_nothing_at_other_sizes_and_groups(
    architecture: int, head_dim: int, group: int, codec: str
) -> None:
    """Where one head a program, wide heads or 128 registers have made it spill."""
    size = ("--head-dim", str(head_dim), "--group", str(group))
    chosen = ("--architectures", str(architecture), "--codecs", codec, "--kernels", "prefill_attention")
    assert [kernel["spilled_bytes"] for kernel in reported(*size, *chosen)["kernels"]] == [0]


def test_the_inner_loop_is_the_one_with_exponentials() -> None:
    assert inner_loop_length(DISASSEMBLY) == 5
    assert inner_loop_length(DISASSEMBLY.replace("MUFU.EX2", "MUFU.RCP")) is None


def test_a_wait_behind_the_kernels_end_does_not_make_the_end_a_part_of_the_loop() -> None:
    assert inner_loop_length(WAITING) == 7
