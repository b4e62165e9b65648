"""What each codec means: how many bits keys and values get, and whether values are rotated first.

Knows the meaning of a codec only. Where its bytes lie is `layout`'s, how they are computed is `reference`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

RAW_BITS = 16
"""Bits standing for "stored as it came", in the cache's dtype."""


@dataclass(frozen=True)
class Codec:
    """How a sealed page stores its keys and values.

    Keys of fewer than 8 bits are asymmetric per channel over the page; values of fewer than 8 bits are asymmetric
    per token after a Hadamard rotation, with a search for the clipping range of least squared error (the rotation
    spreads outliers: QuaRot, Ashkboos et al. 2024; keys per channel: KIVI, Liu et al. 2024). 8 bits are symmetric,
    keys per channel, values per token.
    """

    name: str
    key_bits: int
    value_bits: int

    @property
    def rotates_values(self) -> bool:
        """Whether values are rotated on the way in and turned back on the output."""
        return self.value_bits < 8

    @property
    def guides_keys(self) -> bool:
        """Whether keys are encoded for the queries that will read them; with 8 bits there is nothing to gain."""
        return self.key_bits == 4

    @property
    def compresses(self) -> bool:
        """Whether a sealed page differs from a raw one."""
        return self.key_bits != RAW_BITS


CODECS: dict[str, Codec] = {
    codec.name: codec
    for codec in (
        Codec("none", RAW_BITS, RAW_BITS),
        Codec("int8", 8, 8),
        Codec("k8v4", 8, 4),
        Codec("int4", 4, 4),
        Codec("k4v2", 4, 2),
    )
}


def codec_named(name: str) -> Codec:
    """Looks a codec up.

    Raises:
        ValueError: there is no codec of that name; the text lists those that exist.
    """
    try:
        return CODECS[name]
    except KeyError:
        raise ValueError(f"codec {name!r} is unknown; allowed: {', '.join(CODECS)}") from None
