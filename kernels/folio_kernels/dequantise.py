"""A page's codes into numbers within a kernel, where many queries share what that costs: prefill attention.

With `n = 8 / bits` codes in a byte, byte `b` of a token holds the dims `b`, `b + D / n`, ...: *plane* `j` is the `j`-th
code of every byte, and the planes side by side are the dims in their order. Two bytes are spread over a register, as
the lowest bits of two fp16 numbers of 1024 and more; a mask leaves one plane, one multiply-add takes the 1024 away,
exactly, and a second one applies scale and zero: one rounding to fp16 a number. Numbers are halved, so that also the
largest that fp16 holds, a scale rounded up, stay finite. They come in parts of the dims, whose order is `dims_of_part`.

Instructions are written down in PTX; the interpreter, which has no assembler, does the same in the Triton language.
Does not know which scale belongs to a code: decode attention, whose codes serve few queries, folds scales instead
(`unpack`).
"""

from __future__ import annotations

import triton
import triton.language as tl

from folio_kernels.unpack import ASSEMBLES, SIGN_BIAS

HALF = tl.constexpr(0.5)
"""What numbers are multiplied by."""


@triton.jit
def load_numbers(
    p_codes,
    p_scale,
    p_zero,
    BITS: tl.constexpr,
    IS_PER_TOKEN: tl.constexpr,
    D: tl.constexpr,
    PAGE: tl.constexpr,
    stretch: tl.constexpr,
    PARTS: tl.constexpr,
):
    """The parts of a page's keys or values whose codes lie in one of `num_stretches` stretches of a token's bytes.

    Each part is `[tokens, D / PARTS]` fp16, times `HALF`, its dims those of `dims_of_part`. Scales and zeros are per
    token, or else per dim.
    """
    STRETCHES: tl.constexpr = num_stretches(BITS, D, PARTS)
    BYTES: tl.constexpr = D * BITS // 8
    o_token, o_byte = tl.arange(0, PAGE), stretch * (BYTES // STRETCHES) + tl.arange(0, BYTES // STRETCHES)
    b_bytes = tl.load(p_codes + o_token[:, None] * BYTES + o_byte[None, :])
    b_scale, b_zero = (), ()
    for plane in tl.static_range(8 // BITS):
        o_scale = o_token[:, None] if IS_PER_TOKEN else plane * BYTES + o_byte[None, :]
        b_scale += (tl.load(p_scale.to(tl.pointer_type(tl.float16)) + o_scale),)
        if BITS < 8:
            b_zero += (tl.load(p_zero.to(tl.pointer_type(tl.float16)) + o_scale) * HALF,)
    if BITS == 8:
        b_numbers = (bytes_to_numbers(b_bytes, b_scale[0]),)
    elif BITS == 4:
        b_numbers = nibbles_to_numbers(b_bytes, b_scale, b_zero)
    else:
        b_numbers = quarters_to_numbers(b_bytes, b_scale, b_zero)
    # Up to four planes, and up to four parts of them: at most twice.
    if len(b_numbers) > PARTS // STRETCHES:
        b_numbers = pairs_side_by_side(b_numbers)
    if len(b_numbers) > PARTS // STRETCHES:
        b_numbers = pairs_side_by_side(b_numbers)
    b_parts = ()
    for i in tl.static_range(len(b_numbers)):
        b_parts += (made_once(b_numbers[i]),)
    return b_parts


@triton.constexpr_function
def num_stretches(bits: int, head_dim: int, parts: int) -> int:
    """Stretches of a token's bytes whose numbers are made one after the other.

    As few as parts allow, since planes that are parts already need not be put side by side. At head_dim 256 registers
    hold no more than one part's numbers.
    """
    return parts if head_dim > 128 else min(parts, max(1, parts * bits // 8))


@triton.jit
def dims_of_part(part: tl.constexpr, BITS: tl.constexpr, D: tl.constexpr, PARTS: tl.constexpr):
    """The dims of one of `PARTS` parts, in the order in which `load_numbers` yields them: `[D / PARTS]`."""
    o_dim = tl.arange(0, D // PARTS)
    if PARTS > 1:
        PLANES: tl.constexpr = 8 // BITS if BITS < 8 else 1
        STRETCHES: tl.constexpr = num_stretches(BITS, D, PARTS)
        SHARE: tl.constexpr = PARTS // STRETCHES
        WIDTH: tl.constexpr = D // PLANES // STRETCHES
        o_plane = part % SHARE * (PLANES // SHARE) + o_dim // WIDTH
        o_dim = o_plane * (D // PLANES) + part // SHARE * WIDTH + o_dim % WIDTH
    return o_dim


@triton.jit
def made_once(b_numbers):
    """The same numbers: a sum over one number, which costs nothing, and past which the compiler moves no data.

    For sm_80 it would rather move bytes than numbers between threads, and every warp would make all of a page's.
    """
    if ASSEMBLES:
        b_numbers = tl.reduce(tl.reshape(b_numbers, (b_numbers.shape[0], b_numbers.shape[1], 1)), 2, added)
    return b_numbers


@triton.jit
def added(left, right):
    """What a sum is made of."""
    return left + right


@triton.jit
def side_by_side(b_left, b_right):
    """`[rows, n]` and `[rows, n]` as `[rows, 2 n]`."""
    b_joined = tl.permute(tl.join(b_left, b_right), (0, 2, 1))
    return tl.reshape(b_joined, (b_left.shape[0], 2 * b_left.shape[1]))


@triton.jit
def pairs_side_by_side(b_planes):
    """Half as many blocks, each of two that follow one another."""
    b_pairs = ()
    for i in tl.static_range(0, len(b_planes), 2):
        b_pairs += (side_by_side(b_planes[i], b_planes[i + 1]),)
    return b_pairs


@triton.jit
def bytes_to_numbers(b_bytes, b_scale):
    """Numbers of one plane of 8 bits, whose codes are signed and have no zero."""
    if ASSEMBLES:
        return tl.inline_asm_elementwise(
            """{
            .reg .b32 unsigned, lower, upper, half, bias;
            mov.b32 half, 0x38003800;
            mov.b32 bias, 0xe080e080;
            xor.b32 unsigned, $2, 0x80808080;
            prmt.b32 lower, unsigned, 0x64646464, 0x4140;
            prmt.b32 upper, unsigned, 0x64646464, 0x4342;
            fma.rn.f16x2 lower, lower, half, bias;
            fma.rn.f16x2 upper, upper, half, bias;
            mul.rn.f16x2 $0, lower, $3;
            mul.rn.f16x2 $1, upper, $4;
            }""",
            "=&r,=&r,r,r,r",
            [b_bytes, b_scale],
            dtype=tl.float16,
            is_pure=True,
            pack=4,
        )
    b_signed = (b_bytes ^ 0x80).to(tl.float32) - SIGN_BIAS
    return (b_signed * HALF * b_scale.to(tl.float32)).to(tl.float16)


@triton.jit
def nibbles_to_numbers(b_bytes, b_scale, b_zero):
    """Numbers of two planes of 4 bits."""
    if ASSEMBLES:
        b_low, b_high = tl.inline_asm_elementwise(
            """{
            .reg .b32 lower, upper, code, weight, bias;
            prmt.b32 lower, $4, 0x64646464, 0x4140;
            prmt.b32 upper, $4, 0x64646464, 0x4342;
            mov.b32 weight, 0x38003800;
            mov.b32 bias, 0xe000e000;
            and.b32 code, lower, 0xff0fff0f;
            fma.rn.f16x2 code, code, weight, bias;
            fma.rn.f16x2 $0, code, $5, $9;
            and.b32 code, upper, 0xff0fff0f;
            fma.rn.f16x2 code, code, weight, bias;
            fma.rn.f16x2 $1, code, $6, $10;
            mov.b32 weight, 0x28002800;
            mov.b32 bias, 0xd000d000;
            and.b32 code, lower, 0xfff0fff0;
            fma.rn.f16x2 code, code, weight, bias;
            fma.rn.f16x2 $2, code, $7, $11;
            and.b32 code, upper, 0xfff0fff0;
            fma.rn.f16x2 code, code, weight, bias;
            fma.rn.f16x2 $3, code, $8, $12;
            }""",
            "=&r,=&r,=&r,=&r,r,r,r,r,r,r,r,r,r",
            [b_bytes, b_scale[0], b_scale[1], b_zero[0], b_zero[1]],
            dtype=(tl.float16, tl.float16),
            is_pure=True,
            pack=4,
        )
        return b_low, b_high
    return number(b_bytes & 0x0F, b_scale[0], b_zero[0]), number(b_bytes >> 4, b_scale[1], b_zero[1])


@triton.jit
def quarters_to_numbers(b_bytes, b_scale, b_zero):
    """Numbers of four planes of 2 bits."""
    if ASSEMBLES:
        return tl.inline_asm_elementwise(
            """{
            .reg .b32 lower, upper, code, weight, bias;
            prmt.b32 lower, $8, 0x64646464, 0x4140;
            prmt.b32 upper, $8, 0x64646464, 0x4342;
            mov.b32 weight, 0x38003800;
            mov.b32 bias, 0xe000e000;
            and.b32 code, lower, 0xff03ff03;
            fma.rn.f16x2 code, code, weight, bias;
            fma.rn.f16x2 $0, code, $9, $17;
            and.b32 code, upper, 0xff03ff03;
            fma.rn.f16x2 code, code, weight, bias;
            fma.rn.f16x2 $1, code, $10, $18;
            mov.b32 weight, 0x30003000;
            mov.b32 bias, 0xd800d800;
            and.b32 code, lower, 0xff0cff0c;
            fma.rn.f16x2 code, code, weight, bias;
            fma.rn.f16x2 $2, code, $11, $19;
            and.b32 code, upper, 0xff0cff0c;
            fma.rn.f16x2 code, code, weight, bias;
            fma.rn.f16x2 $3, code, $12, $20;
            mov.b32 weight, 0x28002800;
            mov.b32 bias, 0xd000d000;
            and.b32 code, lower, 0xff30ff30;
            fma.rn.f16x2 code, code, weight, bias;
            fma.rn.f16x2 $4, code, $13, $21;
            and.b32 code, upper, 0xff30ff30;
            fma.rn.f16x2 code, code, weight, bias;
            fma.rn.f16x2 $5, code, $14, $22;
            mov.b32 weight, 0x20002000;
            mov.b32 bias, 0xc800c800;
            and.b32 code, lower, 0xffc0ffc0;
            fma.rn.f16x2 code, code, weight, bias;
            fma.rn.f16x2 $6, code, $15, $23;
            and.b32 code, upper, 0xffc0ffc0;
            fma.rn.f16x2 code, code, weight, bias;
            fma.rn.f16x2 $7, code, $16, $24;
            }""",
            "=&r,=&r,=&r,=&r,=&r,=&r,=&r,=&r,r,r,r,r,r,r,r,r,r,r,r,r,r,r,r,r,r",
            [b_bytes, b_scale[0], b_scale[1], b_scale[2], b_scale[3], b_zero[0], b_zero[1], b_zero[2], b_zero[3]],
            dtype=(tl.float16, tl.float16, tl.float16, tl.float16),
            is_pure=True,
            pack=4,
        )
    b_0, b_1 = number(b_bytes & 0x03, b_scale[0], b_zero[0]), number(b_bytes >> 2 & 0x03, b_scale[1], b_zero[1])
    b_2, b_3 = number(b_bytes >> 4 & 0x03, b_scale[2], b_zero[2]), number(b_bytes >> 6, b_scale[3], b_zero[3])
    return b_0, b_1, b_2, b_3


@triton.jit
def number(b_code, b_scale, b_zero):
    """A code's number times `HALF`; the zero is halved already."""
    return (b_code.to(tl.float32) * HALF * b_scale.to(tl.float32) + b_zero.to(tl.float32)).to(tl.float16)
