"""What all windows say together: means, and how far chance alone could have moved them.

Every codec sees the same windows as the uncompressed cache, so each window gives one paired difference; the intervals
are Student's over windows, which unlike tokens are independent of each other.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import t as student_t

from .teacher_forcing import WindowScores

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over windows and its paired interval, which is infinite where there is only one window."""

    mean: float
    low: float
    high: float

    def through(self, function: Callable[[float], float]) -> Estimate:
        """The same estimate of an increasing function of what it estimates."""
        return Estimate(function(self.mean), function(self.low), function(self.high))


@dataclass(frozen=True)
class CodecQuality:
    """What one codec costs.

    Attributes:
        perplexity_change_percent: of perplexity over the uncompressed cache.
        kl: nats a token from the uncompressed cache's distribution.
        top1_agreement: share of tokens with the same most likely successor.
    """

    perplexity_change_percent: Estimate
    kl: Estimate
    top1_agreement: Estimate


def summarise(windows: Sequence[WindowScores]) -> CodecQuality:
    """Puts one codec's windows, all of equal length, together."""
    loss_change = _estimate([window.loss_change for window in windows])
    return CodecQuality(
        perplexity_change_percent=loss_change.through(lambda nats: 100 * math.expm1(nats)),
        kl=_estimate([window.kl for window in windows]),
        top1_agreement=_estimate([window.top1_agreement for window in windows]),
    )


def _estimate(samples: Sequence[float]) -> Estimate:
    mean, degrees = statistics.fmean(samples), len(samples) - 1
    if degrees == 0:
        return Estimate(mean, -math.inf, math.inf)
    error = statistics.stdev(samples) / math.sqrt(len(samples))
    reach = float(student_t.ppf((1 + CONFIDENCE) / 2, degrees)) * error
    return Estimate(mean, mean - reach, mean + reach)


def as_table(qualities: Mapping[str, CodecQuality], token_bytes: Mapping[str, float]) -> str:
    """A table for a person: bytes a token and KV head, then each figure with its interval."""
    rows = [f"{'codec':8}{'bytes':>6}  {'perplexity, %':>26}  {'KL, nats':>30}  {'top-1, %':>24}"]
    for name, quality in qualities.items():
        agreement = quality.top1_agreement.through(lambda share: 100 * share)
        rows.append(
            f"{name:8}{token_bytes[name]:6.0f}  {_shown(quality.perplexity_change_percent, '+.3f'):>26}"
            f"  {_shown(quality.kl, '.6f'):>30}  {_shown(agreement, '.2f'):>24}"
        )
    return "\n".join(rows)


def _shown(estimate: Estimate, form: str) -> str:
    return f"{estimate.mean:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def as_json(qualities: Mapping[str, CodecQuality]) -> str:
    """One line for a program: the means by codec."""
    codecs = {
        name: {
            "perplexity_change_percent": round(quality.perplexity_change_percent.mean, 4),
            "kl": round(quality.kl.mean, 7),
            "top1_agreement": round(quality.top1_agreement.mean, 5),
        }
        for name, quality in qualities.items()
    }
    return json.dumps({"codecs": codecs})
