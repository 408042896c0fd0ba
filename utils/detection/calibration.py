"""What the calibration data promise: an interval for each probability, and the band in which we do not decide.

Written by training into `calibration.json`, read by the pipeline. The probability itself is calibrated in the gate
(Platt scaling per expert, a temperature for the mixture); here is how far it can be trusted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.errors import WeightsCorruptError
from utils.metrics import clopper_pearson, logit, sigmoid

Array = npt.NDArray[np.float64]

BINS = 12
FALSE_ALARM_PROMISE = 0.10
"""`fake` is said where at most this share of real ones of *any* calibration source is above, by the 95 % bound."""
MISS_PROMISE = 0.15
"""`real` is said where at most this share of the fakes is below, by the 95 % bound."""
STRANGER_ALARMS, STRANGER_WORST, STRANGER_REALS = 0.01, 0.06, 0.68
"""Of sources that a training has not seen: share of real ones called fake, in the mean and of the worst source, and
share called real, in the mean, that choose the band."""
STRANGER_LEAST, WORST_LEAST = 15, 34
"""Sources with fewer real ones do not count there, for the mean and for the worst: one item would weigh too much."""
MISSING_STEP = 0.5
"""Each missing expert moves both ends of the band outward by this much, in logits."""
CHOICE_STEP = 0.75
"""The most suspicious of N people or parts is higher by chance: the fake end moves out by this times ln N, in logits.
Above .5, strangers' real ones get rarer by e with each .71 (clips) to .83 (pictures)."""
MIN_SOURCE = 36
"""Sources with fewer real ones than this cannot bound a rate of a tenth, even without a single false alarm, and are
only counted together."""


@dataclass(frozen=True)
class ReliabilityBin:
    """Calibration items with a probability in `low`..`high`: how many, and how many were fake."""

    low: float
    high: float
    count: int
    fakes: int

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(f"a bin must be ordered within 0..1: {self}")
        if not 0 <= self.fakes <= self.count:
            raise ValueError(f"a bin cannot have more fakes than items: {self}")


@dataclass(frozen=True)
class Calibration:
    """Intervals and the undecided band.

    Args:
        bins: in ascending order, covering 0..1.
        real_below: `real` is said at or below this probability.
        fake_above: `fake` is said at or above this probability.
        figures: what was measured on the calibration data (ECE before and after, counts), for the report.
    """

    bins: tuple[ReliabilityBin, ...]
    real_below: float
    fake_above: float
    figures: Mapping[str, float]

    def __post_init__(self) -> None:
        if not self.bins or self.bins[0].low != 0.0 or self.bins[-1].high != 1.0:
            raise ValueError("the bins must cover 0..1")
        if any(a.high != b.low for a, b in pairwise(self.bins)):
            raise ValueError("each bin must begin where the one before it ends")
        if not 0 <= self.real_below <= self.fake_above <= 1:
            raise ValueError("the undecided band must be ordered within 0..1")

    def interval(self, probability: float) -> tuple[float, float]:
        """95 % interval of the share of fakes among calibration items like this one; it contains `probability`."""
        chosen = next((b for b in self.bins if probability <= b.high), self.bins[-1])
        low, high = clopper_pearson(chosen.fakes, chosen.count)
        return min(low, probability), max(high, probability)

    def band(self, threshold: float, missing: int, choices: float = 1.0) -> tuple[float, float]:
        """The undecided band (real at or below, fake at or above).

        Args:
            choices: how many people or parts one after another this is the most suspicious of.
        """
        shift = MISSING_STEP * missing
        low, high = min(self.real_below, threshold), max(self.fake_above, threshold)
        return sigmoid(logit(low) - shift), sigmoid(logit(high) + shift + CHOICE_STEP * math.log(choices))

    def to_dict(self) -> dict[str, Any]:
        """For `calibration.json`."""
        return asdict(self) | {"figures": dict(self.figures)}


def calibration_from_dict(document: Mapping[str, Any]) -> Calibration:
    """The inverse of `Calibration.to_dict`.

    Raises:
        WeightsCorruptError: the document is not of that form.
    """
    try:
        bins = tuple(ReliabilityBin(**b) for b in document["bins"])
        figures = {str(k): float(v) for k, v in document["figures"].items()}
        return Calibration(bins, float(document["real_below"]), float(document["fake_above"]), figures)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsCorruptError(f"calibration.json is not of the expected form: {error}.") from error


def fit_calibration(
    labels: Array,
    probabilities: Array,
    sources: Sequence[str],
    figures: Mapping[str, float],
    *,
    as_come: npt.NDArray[np.bool_] | None = None,
    strangers: bool = False,
) -> Calibration:
    """Measure bins and band on held-out data.

    Args:
        labels: (N,) 1 fake, 0 real.
        probabilities: (N,) calibrated.
        sources: N names; the false-alarm promise must hold for each with enough real items, and for all together.
        as_come: (N,) items that the bins are counted of; the band, which is to hold for degraded ones too, comes from
            all. None counts all.
        strangers: the probabilities are of sources that the training had not seen: the band then keeps the means over
            such sources (`stranger_band`), not the bounds of known ones.
    """
    counted = np.arange(len(labels)) if as_come is None else np.flatnonzero(as_come)
    order = counted[np.argsort(probabilities[counted], kind="stable")]
    parts = np.array_split(order, min(BINS, max(1, len(order) // 20)))
    edges = [0.0, *((probabilities[a[-1]] + probabilities[b[0]]) / 2 for a, b in pairwise(parts)), 1.0]
    bins = tuple(
        ReliabilityBin(float(low), float(high), len(part), int(labels[part].sum()))
        for part, low, high in zip(parts, edges[:-1], edges[1:], strict=True)
    )
    if strangers:
        return Calibration(bins, *stranger_band(labels, probabilities, sources), dict(figures))
    names = np.asarray(sources)
    reals = [probabilities[labels <= 0.5]]
    reals += [probabilities[(labels <= 0.5) & (names == s)] for s in np.unique(names)]
    fake_above = max(
        _bounded_threshold(1 - r, FALSE_ALARM_PROMISE) for i, r in enumerate(reals) if i == 0 or len(r) >= MIN_SOURCE
    )
    real_below = 1 - _bounded_threshold(probabilities[labels > 0.5], MISS_PROMISE)
    return Calibration(bins, min(real_below, 0.5), max(fake_above, 0.5), dict(figures))


def stranger_band(labels: Array, probabilities: Array, sources: Sequence[str]) -> tuple[float, float]:
    """Where `real` and `fake` begin, by real items of sources that nothing was trained on.

    Returns:
        The smallest probability at or below which at least 68 % of the real ones lie, in the mean over sources, at
        most .5: what is called real beyond that would be fakes. And the smallest from .5 that at most 1 % of the real
        ones reach, in the mean, and at most 6 % of any one source.
    """
    real, names = probabilities[labels <= 0.5], np.asarray(sources)[labels <= 0.5]
    parts = [real[names == name] for name in np.unique(names)]
    reals = [part for part in parts if len(part) >= STRANGER_LEAST] or [real]
    many = [part for part in parts if len(part) >= WORST_LEAST] or [real]
    steps = np.linspace(0, 0.499, 500)
    said = np.array([np.mean([(part <= step).mean() for part in reals]) for step in steps])
    alarms = np.array([np.mean([(part >= 0.5 + step).mean() for part in reals]) for step in steps])
    worst = np.array([max((part >= 0.5 + step).mean() for part in many) for step in steps])
    enough, kept = said >= STRANGER_REALS, (alarms <= STRANGER_ALARMS) & (worst <= STRANGER_WORST)
    real_below = steps[int(enough.argmax())] if enough.any() else 0.5
    fake_above = 0.5 + steps[int(kept.argmax())] if kept.any() else 0.999
    return float(real_below), float(fake_above)


def _bounded_threshold(safe: Array, promise: float) -> float:
    """The smallest t in 0.5..1 such that the share of items with 1 - safe >= t has its upper bound within `promise`."""
    wrong = np.sort(1 - safe)[::-1]  # the most wrong first
    allowed = 0
    while allowed < len(wrong) and clopper_pearson(allowed + 1, len(wrong))[1] <= promise:
        allowed += 1
    if clopper_pearson(allowed, len(wrong))[1] > promise if len(wrong) else True:
        return 0.999  # too few items to promise anything
    limit = float(wrong[allowed]) if allowed < len(wrong) else 0.5
    return min(1.0, max(0.5, limit + 1e-6))
