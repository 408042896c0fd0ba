"""Figures of score files: per set, generator by generator, and each source of real media by itself.

Intervals come by bootstrap over groups. A mean over sources hides the one that goes wrong, so every generator is
measured beside the real media of its own sources, and the false alarms of every real source stand alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from models.cards import EXPERT_NAMES
from utils.detection.calibration import Calibration
from utils.detection.verdict import outcome_of
from utils.evaluation.datasets import family_of
from utils.evaluation.score_file import LOGIT_COLUMNS, NOT_JUDGED, read_scores
from utils.metrics import Figure, accuracy, auc, bootstrap, ece, ece_by_chance, eer, false_alarm_rate, miss_rate

Array = npt.NDArray[np.float64]
Row = Mapping[str, str]
Counts = dict[str, dict[str, int]]
MEASURED = ("accuracy", "false_alarms", "misses", "auc", "eer", "ece")
"""Figures of probabilities, cut at 50 % where they are cut."""
CLIPS, PICTURES = "clips", "pictures"
"""Sets that join several sources: all clips, and all pictures where they have more than one source."""
MOST_ALONE = 12
"""Sources of pictures, and generators, that stand alone: the largest; the others come together."""
MIN_REAL = 15
"""Sources with fewer real media cannot have a rate of their own."""


def split_into_sets(rows: Sequence[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    """Rows per set: the largest sources of pictures, the others together, `clips`, and `pictures` for all of them where
    there are several.
    """
    sets: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        own = f"{row['source']} (source)" if row["source"] in (CLIPS, PICTURES) else row["source"]
        sets.setdefault(own if row["kind"] == "image" else CLIPS, []).append(row)
    clips = {CLIPS: sets.pop(CLIPS)} if CLIPS in sets else {}
    sets = _largest(sets, "sources") | clips
    pictures = [row for row in rows if row["kind"] == "image"]
    if len({row["source"] for row in pictures}) > 1:
        sets[PICTURES] = pictures
    return sets


def _largest(sets: dict[str, list[dict[str, str]]], what: str) -> dict[str, list[dict[str, str]]]:
    """The largest sets in their order, and the others as one."""
    small = sorted(sets, key=lambda name: -len(sets[name]))[MOST_ALONE:]
    together = [row for name, rows in sets.items() if name in small for row in rows]
    alone = {name: rows for name, rows in sets.items() if name not in small}
    return alone | ({f"{len(small)} smaller {what}": together} if small else {})


def figures_of(path: Path, calibration: Calibration, *, rounds: int = 1000) -> dict[str, Any]:
    """Figures per validation set.

    Args:
        calibration: gives the undecided band, for coverage and the errors among decided ones.

    Returns:
        Per set (`dfdc`, ..., `clips`, and `pictures` for all of them together) a dictionary of counts and of figures
        `[value, low, high]`.
    """
    sets = split_into_sets(read_scores(path))
    return {name: _figures(part, calibration, rounds) for name, part in sets.items()}


def _figures(rows: Sequence[Row], calibration: Calibration, rounds: int) -> dict[str, Any]:
    labels, probabilities = labels_and_probabilities(rows)
    groups = np.array([row["group"] for row in rows])
    raw = np.array([[float(row[c]) if row[c] else np.nan for c in LOGIT_COLUMNS] for row in rows])
    measured = measures(rows, calibration, rounds)
    out: dict[str, Any] = {"real": int((labels < 0.5).sum()), "fake": int((labels > 0.5).sum())}
    out |= {name: measured[name] for name in MEASURED if name in measured}
    out["coverage"] = measured["decided"][0]
    if "called_fake" in measured:
        out |= {"false_alarms_decided": measured["called_fake"], "cleared": measured["cleared"]}
    if "called_real" in measured:
        out["called_real"] = measured["called_real"]

    def auc_of(scores: Array) -> list[float] | None:
        known = ~np.isnan(scores)
        if not known.any() or not 0 < labels[known].mean() < 1:
            return None
        return rounded(bootstrap(auc, labels[known], scores[known], groups[known].tolist(), rounds=rounds))

    found = {name: auc_of(raw[:, e]) for e, name in enumerate(EXPERT_NAMES)}
    out["experts"] = {name: figure for name, figure in found.items() if figure is not None}
    if "auc" in out:
        mean = np.nanmean(raw, axis=1)
        out["plain_mean"] = auc_of(mean)
        out["ece_before"] = round(ece(labels, expit(mean)), 4)
        out["ece_by_chance"] = round(ece_by_chance(probabilities), 4)
    return out


def labels_and_probabilities(rows: Sequence[Mapping[str, str]]) -> tuple[Array, Array]:
    """(N,) labels, 1 fake, and (N,) calibrated probabilities."""
    labels = np.array([row["label"] == "fake" for row in rows], np.float64)
    return labels, np.array([float(row["probability"]) for row in rows])


def rounded(figure: Figure) -> list[float]:
    return [round(v, 4) for v in (figure.value, figure.low, figure.high)]


def verdict_of(row: Row, calibration: Calibration) -> str:
    """The verdict of a row: what the pipeline said, or where only a probability is known, what the band says of it."""
    return row.get("outcome") or outcome_of(float(row["probability"]), calibration.band(0.5, 0)).value


def count_verdicts(rows: Sequence[Row], calibration: Calibration) -> Counts:
    """How many real and fake ones got each verdict: label to verdict to number."""
    counts: Counts = {"real": {}, "fake": {}}
    for row in rows:
        of_label = counts[row["label"]]
        outcome = verdict_of(row, calibration)
        of_label[outcome] = of_label.get(outcome, 0) + 1
    return counts


def judged(rows: Sequence[Row]) -> list[Row]:
    """The rows that have a score."""
    return [row for row in rows if row.get("outcome") not in NOT_JUDGED]


def measures(rows: Sequence[Row], calibration: Calibration, rounds: int) -> dict[str, list[float]]:
    """Figures `[value, low, high]` of rows: those of `MEASURED`, as far as their labels allow, and of verdicts.

    `decided` is the share with a verdict other than inconclusive, `called_fake` and `cleared` the shares of the real
    ones with the verdict fake and real, `called_real` that of the fakes with the verdict real.
    """
    labels, probabilities = labels_and_probabilities(rows)
    groups = [row["group"] for row in rows]
    verdicts = np.array([{"fake": 1.0, "real": 0.0}.get(verdict_of(r, calibration), 0.5) for r in rows])
    wanted: dict[str, tuple[Callable[[Array, Array], float], Array]] = {"accuracy": (accuracy, probabilities)}
    if (labels < 0.5).any():
        wanted["false_alarms"] = (false_alarm_rate, probabilities)
        wanted["called_fake"] = (partial(false_alarm_rate, threshold=1.0), verdicts)
        wanted["cleared"] = (lambda truth, said: miss_rate(1 - truth, said), verdicts)
    if (labels > 0.5).any():
        wanted["misses"] = (miss_rate, probabilities)
        wanted["called_real"] = (partial(miss_rate, threshold=0.5), verdicts)
    if 0 < labels.mean() < 1:
        wanted |= {"auc": (auc, probabilities), "eer": (eer, probabilities), "ece": (ece, probabilities)}
    wanted["decided"] = (lambda truth, said: float((said != 0.5).mean()), verdicts)
    return {
        name: rounded(bootstrap(statistic, labels, values, groups, rounds=rounds))
        for name, (statistic, values) in wanted.items()
    }


def generators(sets: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """Judged rows per generator of pictures and per family of clips, with the real ones beside which they are seen."""
    out: dict[str, list[Row]] = {}
    for name, rows in sets.items():
        if name == PICTURES:
            continue
        scored = judged(rows)
        real = [row for row in scored if row["label"] == "real"]

        def key(row: Row, of_clips: bool = name == CLIPS) -> str:
            return f"clips, {family_of(row['generator'])}" if of_clips else row["generator"]

        for generator in sorted({key(row) for row in scored if row["label"] == "fake"}):
            fakes = [row for row in scored if row["label"] == "fake" and key(row) == generator]
            out.setdefault(generator, []).extend([*real, *fakes])
    count = {name: sum(row["label"] == "fake" for row in rows) for name, rows in out.items()}
    small = sorted(out, key=lambda name: -count[name])[MOST_ALONE:]
    together = {id(row): row for name in small for row in out.pop(name)}  # real ones stand beside many, and count once
    return out | ({f"{len(small)} smaller generators": list(together.values())} if small else {})


def real_sources(sets: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """Judged real rows per source; sources of a few come together."""
    out: dict[str, list[Row]] = {}
    for name, rows in sets.items():
        for row in judged(rows) if name != PICTURES else ():
            if row["label"] == "real":
                out.setdefault(row["source"], []).append(row)
    small = [name for name, rows in out.items() if len(rows) < MIN_REAL]
    together = [row for name in small for row in out.pop(name)]
    named = dict(sorted(out.items()))
    return named | ({f"{len(small)} sources of less than {MIN_REAL}": together} if together else {})
