"""What was measured, and what follows from it: shares, ratios, and which goals are met.

Plain values and arithmetic: nothing here needs a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

IDEAL_SHARE = 0.85
"""Of copy bandwidth: what an ideal bf16 kernel reaches. A baseline that stays under it is no yardstick."""


@dataclass(frozen=True)
class Decode:
    """One layer's decode step over one codec's pages.

    Attributes:
        shape, workload, codec: what was measured.
        seconds: the median time.
        num_bytes: what the codec's pages make it read.
    """

    shape: str
    workload: str
    codec: str
    seconds: float
    num_bytes: int


@dataclass(frozen=True)
class Baseline:
    """The same step over an uncompressed cache, by somebody's kernel.

    Attributes:
        shape, workload, name: what was measured.
        num_bytes: what it reads.
        seconds: the median time; None where it does not run.
        reason: why it does not.
    """

    shape: str
    workload: str
    name: str
    num_bytes: int
    seconds: float | None
    reason: str = ""


@dataclass(frozen=True)
class Sealing:
    """Compression of full pages.

    Attributes:
        codec: what was measured.
        seconds: the median time of `num_bytes` read and written in one launch.
        num_bytes: raw pages read and sealed ones written.
        share_of_step: what sealing takes of a decode step's attention, all layers, at one page per sequence and
            `page_size` steps.
    """

    shape: str
    workload: str
    codec: str
    seconds: float
    num_bytes: int
    share_of_step: float


@dataclass(frozen=True)
class Prefill:
    """Appending, sealing and attention of a chunk of `num_new` tokens after `num_before` others, in one layer."""

    shape: str
    num_before: int
    num_new: int
    codec: str
    seconds: float


@dataclass(frozen=True)
class Results:
    """One run's measurements; `copy_bytes_per_s` counts bytes read and written."""

    device: str
    versions: dict[str, str]
    copy_bytes_per_s: float
    decodes: tuple[Decode, ...]
    baselines: tuple[Baseline, ...]
    sealings: tuple[Sealing, ...]
    prefills: tuple[Prefill, ...]

    def share_of_copy(self, measured: Decode | Sealing) -> float:
        """Bytes over time, as a share of copy bandwidth."""
        return measured.num_bytes / measured.seconds / self.copy_bytes_per_s

    def best_baseline(self, decode: Decode) -> Baseline | None:
        """The fastest bf16 kernel on the same case; our own `none` is one of them."""
        own = [
            Baseline(each.shape, each.workload, "our none", each.num_bytes, each.seconds)
            for each in self.decodes
            if each.codec == "none"
        ]
        same = [
            each
            for each in (*self.baselines, *own)
            if (each.shape, each.workload) == (decode.shape, decode.workload) and each.seconds is not None
        ]
        return min(same, key=_seconds, default=None)

    def ratio(self, decode: Decode) -> tuple[float, str] | None:
        """How many times faster than bf16, and than which: the best baseline, or an ideal kernel if that is faster.

        None where no baseline was measured.
        """
        best = self.best_baseline(decode)
        if best is None:
            return None
        ideal_s = best.num_bytes / (IDEAL_SHARE * self.copy_bytes_per_s)
        if ideal_s < _seconds(best):
            return ideal_s / decode.seconds, f"ideal at {IDEAL_SHARE:.0%}"
        return _seconds(best) / decode.seconds, best.name

    def prefill_ratio(self, prefill: Prefill) -> float | None:
        """Its time over that of `none` on the same chunk."""
        for each in self.prefills:
            if (each.shape, each.num_before, each.num_new, each.codec) == (
                prefill.shape,
                prefill.num_before,
                prefill.num_new,
                "none",
            ):
                return prefill.seconds / each.seconds
        return None


def _seconds(baseline: Baseline) -> float:
    assert baseline.seconds is not None
    return baseline.seconds


@dataclass(frozen=True)
class Goal:
    """A bound on a figure, and the figure; `measured` is None where it was not taken."""

    text: str
    bound: float
    is_upper: bool
    measured: float | None

    @property
    def verdict(self) -> str:
        """Met, missed, or not measured."""
        if self.measured is None:
            return "not measured"
        return "met" if (self.measured <= self.bound if self.is_upper else self.measured >= self.bound) else "missed"


SHARE_GOALS = {"none": 0.85, "int8": 0.80, "k8v4": 0.75, "int4": 0.70, "k4v2": 0.65}
RATIO_GOALS = {"int4": 3.0, "k4v2": 3.7}
SEALING_SHARE_GOAL, SEALING_STEP_GOAL, PREFILL_GOAL = 0.70, 0.03, 1.15


def goals(results: Results, shape: str, workload: str) -> list[Goal]:
    """The goals, set at one shape and workload, beside what was measured there."""
    decodes = {each.codec: each for each in results.decodes if (each.shape, each.workload) == (shape, workload)}
    found = []
    for codec, bound in SHARE_GOALS.items():
        share = results.share_of_copy(decodes[codec]) if codec in decodes else None
        found.append(Goal(f"{codec}: share of copy bandwidth", bound, is_upper=False, measured=share))
    for codec, bound in RATIO_GOALS.items():
        compared = results.ratio(decodes[codec]) if codec in decodes else None
        found.append(
            Goal(f"{codec}: times as fast as bf16", bound, is_upper=False, measured=compared[0] if compared else None)
        )
    for sealing in (each for each in results.sealings if each.codec != "none"):
        share = results.share_of_copy(sealing)
        found.append(
            Goal(
                f"sealing {sealing.codec}: share of copy bandwidth", SEALING_SHARE_GOAL, is_upper=False, measured=share
            )
        )
        text = f"sealing {sealing.codec}: share of a decode step"
        found.append(Goal(text, bound=SEALING_STEP_GOAL, is_upper=True, measured=sealing.share_of_step))
    for prefill in (each for each in results.prefills if each.codec == "int4"):
        text = f"prefill int4, {prefill.num_new} tokens after {prefill.num_before}: time over none"
        found.append(Goal(text, PREFILL_GOAL, is_upper=True, measured=results.prefill_ratio(prefill)))
    return found
