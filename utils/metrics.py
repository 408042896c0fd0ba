"""Figures of merit with 95 % intervals by bootstrap over groups (identities, clips), not over single pictures."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def sigmoid(logit: float) -> float:
    """Probability of a logit, without overflow."""
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


def sigmoids(logits: Array) -> Array:
    """Probabilities of calibrated logits."""
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -500, 500))))


def logit(probability: float, least: float = 1e-6) -> float:
    """Logit of a probability, which is held `least` away from 0 and 1."""
    clipped = min(max(probability, least), 1 - least)
    return math.log(clipped / (1 - clipped))


@dataclass(frozen=True)
class Figure:
    """A measured value and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def auc(labels: Array, scores: Array) -> float:
    """Area under the ROC curve: the chance that a fake scores above a real; NaN when a class is absent.

    Args:
        labels: (N,) 1 fake, 0 real.
        scores: (N,) higher is more fake; ties count half. With a NaN among them there is no AUC.
    """
    positive = labels > 0.5
    n_fake, n_real = int(positive.sum()), int((~positive).sum())
    if not n_fake or not n_real:
        return float("nan")
    if np.isnan(scores).any():
        return float("nan")
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]  # from 1; equal scores share the mean of theirs
    return float((ranks[positive].sum() - n_fake * (n_fake + 1) / 2) / (n_fake * n_real))


def eer(labels: Array, scores: Array) -> float:
    """Equal error rate: where false alarms and misses are equally frequent; NaN when a class is absent."""
    miss, alarm = _error_rates(labels, scores)
    nearest = int(np.argmin(np.abs(miss - alarm)))
    return float((miss[nearest] + alarm[nearest]) / 2)


def _error_rates(labels: Array, scores: Array) -> tuple[Array, Array]:
    """Shares of the fakes that are missed and of the real ones that are refused, at each threshold in ascending order;
    a single NaN each when a class is absent.
    """
    fakes, reals = np.sort(scores[labels > 0.5]), np.sort(scores[labels <= 0.5])
    if not len(fakes) or not len(reals):
        return np.array([np.nan]), np.array([np.nan])
    thresholds = np.unique(np.append(scores, np.inf))
    missed, passed = (np.searchsorted(part, thresholds, side="left") / len(part) for part in (fakes, reals))
    return missed, 1 - passed


def min_dcf(labels: Array, scores: Array) -> float:
    """Least normalised cost of a detector over all thresholds; 1 is that of calling everything real.

    One recording in 20 is a fake and passing it costs ten times as much as refusing a real one; NaN when a class is
    absent. Source: the first measure of track 1 of ASVspoof 5 (Wang et al. 2024).
    """
    passed, refused = _error_rates(labels, scores)
    return float((0.95 * refused + 10 * 0.05 * passed).min() / min(0.95, 10 * 0.05))


def accuracy(labels: Array, probabilities: Array, threshold: float = 0.5) -> float:
    """Share of right answers at a threshold."""
    return float(((probabilities >= threshold) == (labels > 0.5)).mean())


def false_alarm_rate(labels: Array, probabilities: Array, threshold: float = 0.5) -> float:
    """Share of the real ones that are called fake; NaN without real ones."""
    real = labels <= 0.5
    return float((probabilities[real] >= threshold).mean()) if real.any() else float("nan")


def miss_rate(labels: Array, probabilities: Array, threshold: float = 0.5) -> float:
    """Share of the fakes that are called real; NaN without fakes."""
    fake = labels > 0.5
    return float((probabilities[fake] < threshold).mean()) if fake.any() else float("nan")


def ece(labels: Array, probabilities: Array, bins: int = 10) -> float:
    """Expected calibration error: mean gap between stated probability and observed share, over equally full bins.

    Source: Naeini et al. 2015; equal-mass bins after Nixon et al. 2019.
    """
    order = np.argsort(probabilities, kind="stable")
    total = 0.0
    for part in np.array_split(order, min(bins, len(order))):
        total += len(part) * abs(float(probabilities[part].mean()) - float(labels[part].mean()))
    return total / len(labels)


def ece_by_chance(probabilities: Array) -> float:
    """The ECE that perfectly calibrated probabilities show on average on as many items: it is never 0 on a few.

    Labels are drawn as the probabilities say. Source: the bias is described by Roelofs et al. 2022, "Mitigating Bias in
    Calibration Error Estimation".
    """
    rng = np.random.default_rng(0)
    drawn = ((rng.random(len(probabilities)) < probabilities).astype(np.float64) for _ in range(400))
    return float(np.mean([ece(labels, probabilities) for labels in drawn]))


def bootstrap(
    statistic: Callable[[Array, Array], float],
    labels: Array,
    scores: Array,
    groups: Sequence[str],
    *,
    rounds: int = 1000,
    seed: int = 0,
) -> Figure:
    """A statistic with its 95 % interval; whole groups are drawn, since pictures of one person are not independent."""
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    members = [np.flatnonzero(codes == i) for i in range(len(names))]
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(rounds):
        drawn = np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
        values.append(statistic(labels[drawn], scores[drawn]))
    finite = np.array([v for v in values if np.isfinite(v)])
    low, high = np.percentile(finite, [2.5, 97.5]) if len(finite) else (np.nan, np.nan)
    return Figure(statistic(labels, scores), float(low), float(high))


@functools.lru_cache(maxsize=4096)
def clopper_pearson(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a share: where so many successes, or more, or fewer, become as unlikely as half of `1 - level`.

    It is found without SciPy, whose import would take a fifth of a worker's start.

    Source: Clopper and Pearson 1934, "The Use of Confidence or Fiducial Limits".
    """
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else _share_with_tail(successes, trials, tail)
    high = 1.0 if successes == trials else 1 - _share_with_tail(trials - successes, trials, tail)
    return low, high


def _share_with_tail(least: int, trials: int, tail: float) -> float:
    """The share at which `least` or more successes in so many trials have the probability `tail`, by bisection."""
    counts = np.arange(1, trials + 1)
    ways = np.cumsum(np.log(trials + 1 - counts) - np.log(counts))[least - 1 :]  # logarithms of the binomials
    counts = counts[least - 1 :]
    low, high = 0.0, 1.0
    while high - low > 1e-14:
        middle = (low + high) / 2
        if np.exp(ways + counts * np.log(middle) + (trials - counts) * np.log1p(-middle)).sum() > tail:
            high = middle
        else:
            low = middle
    return (low + high) / 2
