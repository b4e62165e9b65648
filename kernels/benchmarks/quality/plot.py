"""Draws bytes against divergence. Knows how figures look, not where they come from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from .summary import CodecQuality, Estimate


def draw(qualities: Mapping[str, CodecQuality], token_bytes: Mapping[str, float], path: Path) -> None:
    """Writes a picture in the format that the path's suffix names (SVG, PNG, PDF); makes its folder.

    Args:
        qualities: by codec.
        token_bytes: bytes a token and KV head take in a sealed page, metadata included, by codec.
        path: where to.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, quality in qualities.items():
        point = (token_bytes[name], quality.kl.mean)
        axes.errorbar(*point, yerr=_bars(quality.kl), fmt="o", capsize=3, color="C0")
        axes.annotate(name, point, xytext=(7, 3), textcoords="offset points")
    axes.set_yscale("log")
    axes.margins(x=0.12)  # room for the last name
    axes.set_xlabel("bytes per token and KV head")
    axes.set_ylabel("KL to the uncompressed cache, nats per token")
    axes.grid(visible=True, which="both", alpha=0.25)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _bars(kl: Estimate) -> list[list[float]] | None:
    """The interval as distances from the mean; its lower end stays above zero, where the logarithm ends."""
    if math.isinf(kl.high):
        return None
    return [[min(kl.mean - kl.low, 0.99 * kl.mean)], [kl.high - kl.mean]]
