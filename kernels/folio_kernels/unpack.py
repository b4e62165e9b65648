"""Unpacking codes within a kernel: one machine instruction turns two codes into two fp16 numbers.

A field of codes is read as 16-bit words. With `n = 8 / bits` codes in a byte, word `w` of a token holds the codes of
the dims `2w + byte + j * D / n`; each pair `(j, byte)` is a *stream*: the same bits of every word, one code a word. A
stream is masked out where it lies and taken as the bits of an fp16 number: a code `c` in the lowest bits of a byte is
the subnormal number `c * 2^-24`, one that lies `bits * j` bits higher is larger by `2^(bits * j)`. Tensor cores
multiply subnormal numbers exactly, so nothing is converted, no bias is subtracted, and the powers of two go into
factors that are multiplied anyway. Only 8-bit codes, which are signed, are shifted by 128 to be unsigned.

Streams are listed with `j` outermost. Two words lie in one register, so the instructions are written down in PTX; the
interpreter, which has no assembler, does the same in the Triton language. Does not know what the codes mean.
"""

from __future__ import annotations

import triton
import triton.language as tl

ASSEMBLES = tl.constexpr(not triton.knobs.runtime.interpret)
"""Whether there is an assembler: not in the interpreter."""

CODE_UNIT = tl.constexpr(2.0**-24)
"""What a code of 1 in the lowest bits is, taken as fp16: its smallest subnormal number."""

SIGN_BIAS = tl.constexpr(128.0)
"""What is added to signed 8-bit codes."""


@triton.jit
def unpack_streams(b_words, BITS: tl.constexpr):
    """The `16 / BITS` streams of a block of int16 words, as fp16 blocks of the same shape, in units of `CODE_UNIT`."""
    if BITS == 8:
        b_streams = unpack_bytes(b_words)
    elif BITS == 4:
        b_streams = unpack_nibbles(b_words)
    else:
        b_streams = unpack_quarters(b_words)
    return b_streams


@triton.jit
def unpack_bytes(b_words):
    """Two streams of 8 bits, each code shifted by `SIGN_BIAS`."""
    if ASSEMBLES:
        return tl.inline_asm_elementwise(
            """{
            .reg .b32 unsigned;
            xor.b32 unsigned, $2, 0x80808080;
            and.b32 $0, unsigned, 0x00ff00ff;
            prmt.b32 $1, unsigned, 0, 0x4341;
            }""",
            "=r,=r,r",
            [b_words],
            dtype=(tl.float16, tl.float16),
            is_pure=True,
            pack=2,
        )
    b_unsigned = b_words ^ 0x8080 - 0x10000
    return masked(b_unsigned, 0, 0xFF), masked(b_unsigned, 8, 0xFF)


@triton.jit
def unpack_nibbles(b_words):
    """Four streams of 4 bits."""
    if ASSEMBLES:
        b_0, b_1, b_2, b_3 = tl.inline_asm_elementwise(
            """{
            .reg .b32 upper;
            and.b32 $0, $4, 0x000f000f;
            and.b32 $2, $4, 0x00f000f0;
            shr.u32 upper, $4, 8;
            and.b32 $1, upper, 0x000f000f;
            and.b32 $3, upper, 0x00f000f0;
            }""",
            "=r,=r,=r,=r,r",
            [b_words],
            dtype=(tl.float16, tl.float16, tl.float16, tl.float16),
            is_pure=True,
            pack=2,
        )
        return b_0, b_1, b_2, b_3
    return masked(b_words, 0, 0x0F), masked(b_words, 8, 0x0F), masked(b_words, 0, 0xF0), masked(b_words, 8, 0xF0)


@triton.jit
def unpack_quarters(b_words):
    """Eight streams of 2 bits."""
    if ASSEMBLES:
        return tl.inline_asm_elementwise(
            """{
            .reg .b32 upper;
            and.b32 $0, $8, 0x00030003;
            and.b32 $2, $8, 0x000c000c;
            and.b32 $4, $8, 0x00300030;
            and.b32 $6, $8, 0x00c000c0;
            shr.u32 upper, $8, 8;
            and.b32 $1, upper, 0x00030003;
            and.b32 $3, upper, 0x000c000c;
            and.b32 $5, upper, 0x00300030;
            and.b32 $7, upper, 0x00c000c0;
            }""",
            "=r,=r,=r,=r,=r,=r,=r,=r,r",
            [b_words],
            dtype=(tl.float16,) * 8,
            is_pure=True,
            pack=2,
        )
    b_streams = ()
    for pair in tl.static_range(4):
        b_streams += (masked(b_words, 0, 0x03 << 2 * pair), masked(b_words, 8, 0x03 << 2 * pair))
    return b_streams


@triton.jit
def masked(b_words, SHIFT: tl.constexpr, MASK: tl.constexpr):
    """Some bits of int16 words, moved down and taken as the bits of fp16 numbers."""
    return ((b_words >> SHIFT) & MASK).to(tl.int16).to(tl.float16, bitcast=True)


@triton.jit
def unpack_halves(b_pairs):
    """The lower and the upper fp16 numbers of int32 words."""
    if ASSEMBLES:
        return tl.inline_asm_elementwise(
            "prmt.b32 $0, $2, $3, 0x5410; prmt.b32 $1, $2, $3, 0x7632;",
            "=r,=r,r,r",
            [b_pairs],
            dtype=(tl.float16, tl.float16),
            is_pure=True,
            pack=2,
        )
    b_lower = (b_pairs & 0xFFFF).to(tl.int16).to(tl.float16, bitcast=True)
    return b_lower, (b_pairs >> 16).to(tl.int16).to(tl.float16, bitcast=True)
