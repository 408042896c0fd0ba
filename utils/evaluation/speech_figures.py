"""Figures of the network of speech: known and left-out families, strangers' recordings, codecs, and what is no voice.

`train.py --speech` writes the scores of its validation recordings, whose figures go into the card of the version;
`benchmarks/speech_scorecard.py` makes a page of them.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from utils.detection.calibration import Calibration, fit_calibration
from utils.detection.verdict import outcome_of
from utils.metrics import Array, Figure, auc, bootstrap, eer, min_dcf, sigmoid
from utils.types import Outcome

ROUNDS = 500
LEAST = 2
"""Recordings of a family, with fewer of which it has no figure of its own."""
COLUMNS = ("label", "kind", "stranger", "speaker", *(STRESSES := ("plain", "opus16", "mp3_64", "telephone")))


@dataclass(frozen=True)
class Scores:
    """Validation recordings with what the network says of them.

    Args:
        labels: (N,) 1 fake, 0 real.
        kinds: N families of fakes and worlds of real recordings.
        strangers: (N,) whether nothing of this kind was trained on.
        speakers: N names, which intervals are drawn by.
        logits: (N, 4) raw, a column for each of `STRESSES`.
    """

    labels: Array
    kinds: tuple[str, ...]
    strangers: Array
    speakers: tuple[str, ...]
    logits: Array

    def part(self, chosen: npt.NDArray[np.bool_]) -> Scores:
        """Some of them."""
        places = np.flatnonzero(chosen)
        kinds, speakers = (tuple(names[i] for i in places) for names in (self.kinds, self.speakers))
        return Scores(self.labels[places], kinds, self.strangers[places], speakers, self.logits[places])

    def figure(self, statistic: Callable[[Array, Array], float], column: int = 0) -> Figure:
        """A statistic over them, speakers drawn whole for its interval."""
        return bootstrap(statistic, self.labels, self.logits[:, column], self.speakers, rounds=ROUNDS)


def write_scores(scores: Scores, path: Path) -> None:
    """As a table, a line for each recording."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for row in zip(scores.labels, scores.kinds, scores.strangers, scores.speakers, scores.logits, strict=True):
            writer.writerow([int(row[0]), row[1], int(row[2]), row[3], *(f"{v:.4f}" for v in row[4])])


def read_scores(path: Path) -> Scores:
    """The inverse of `write_scores`."""
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    labels, strangers = (np.array([float(r[name]) for r in rows]) for name in ("label", "stranger"))
    logits = np.array([[float(r[name]) for name in STRESSES] for r in rows])
    return Scores(labels, tuple(r["kind"] for r in rows), strangers, tuple(r["speaker"] for r in rows), logits)


def platt(scores: Scores) -> tuple[float, float]:
    """Scale and shift that make logits, over all stresses, probabilities where both classes are equally frequent.

    Source: Platt 1999, "Probabilistic Outputs for Support Vector Machines".
    """
    from sklearn.linear_model import LogisticRegression

    columns = scores.logits.shape[1]
    fitted = LogisticRegression(C=10.0, class_weight="balanced")
    fitted.fit(scores.logits.reshape(-1, 1), np.repeat(scores.labels, columns))
    return max(float(fitted.coef_[0, 0]), 0.05), float(fitted.intercept_[0])


def calibrate(scores: Scores) -> tuple[float, float, Calibration]:
    """Scale, shift and the undecided band of these recordings.

    `fake` begins where hardly any real recording of a stranger reaches, as for faces; `real` ends where the fakes that
    lie below are bounded, since few fakes are recognised by a network that hears so little.
    """
    scale, shift = platt(scores)
    probabilities = np.array([sigmoid(scale * v + shift) for v in scores.logits.ravel()])
    columns = scores.logits.shape[1]
    names = [kind for kind in scores.kinds for _ in range(columns)]
    labels = np.repeat(scores.labels, columns)
    plain = np.arange(len(labels)) % columns == 0
    counts = {"recordings": float(len(scores.labels)), "scale": scale, "shift": shift}
    found = fit_calibration(labels, probabilities, names, counts, as_come=plain, strangers=True)
    bounded = fit_calibration(scores.labels, probabilities[plain], scores.kinds, {}).real_below
    return scale, shift, replace(found, real_below=min(found.real_below, bounded))


def outcomes(scores: Scores) -> list[Outcome]:
    """Verdicts by a calibration that has seen neither a recording's family nor its world: two halves, crosswise."""
    half = np.array([sum(map(ord, kind)) % 2 for kind in scores.kinds])
    found: dict[int, Outcome] = {}
    for side in (0, 1):
        scale, shift, calibration = calibrate(scores.part(half != side))
        for i in np.flatnonzero(half == side):
            probability = sigmoid(scale * scores.logits[i, 0] + shift)
            found[int(i)] = outcome_of(probability, calibration.band(0.5, 0))
    return [found[i] for i in range(len(scores.labels))]


def figures_of(scores: Scores) -> dict[str, object]:
    """What a card keeps of the scores."""
    real, known = scores.labels < 0.5, scores.strangers < 0.5
    families = {
        kind: scores.part(real | (np.array(scores.kinds) == kind)).figure(eer)
        for kind in sorted({k for k, label, s in zip(scores.kinds, scores.labels, scores.strangers, strict=True)
                            if label and s})
        if sum(k == kind for k in scores.kinds) >= LEAST
    }  # fmt: skip
    plain = scores.figure(auc).value
    return {
        "auc": str(scores.figure(auc)),
        "min_dcf": str(scores.figure(min_dcf)),
        "eer_known_families": str(scores.part(real | known).figure(eer)),
        "eer_left_out_families": {kind: str(figure) for kind, figure in families.items()},
        "eer_left_out_mean": round(float(np.mean([f.value for f in families.values()])), 3) if families else None,
        "eer_left_out_pooled": str(scores.part(real | ~known).figure(eer)),
        "auc_lost": {
            name: round(plain - scores.figure(auc, column).value, 3) for column, name in enumerate(STRESSES) if column
        },
    }
