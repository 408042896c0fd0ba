"""Figures of score files per set of files, with intervals by bootstrap over groups, and the tables that show them.

Training keeps them in the card of a version; `benchmarks/scorecard.py` makes the page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from models.cards import EXPERT_NAMES, expert_card
from utils.detection.calibration import Calibration
from utils.detection.verdict import outcome_of
from utils.evaluation.score_file import LOGIT_COLUMNS, NOT_JUDGED, read_scores
from utils.metrics import Figure, accuracy, auc, bootstrap, ece, ece_by_chance, eer, false_alarm_rate, miss_rate

Array = npt.NDArray[np.float64]
Row = Mapping[str, str]
MEASURED = ("accuracy", "false_alarms", "misses", "auc", "eer", "ece")
"""Figures of probabilities, cut at 50 % where they are cut."""
CLIPS, PICTURES = "clips", "pictures"
"""Sets that join several sources: all clips, and all pictures where they have more than one source."""
MOST_ALONE = 12
"""Sources of pictures, and generators, that stand alone: the largest; the others come together."""
INTRO = (
    "Made by `make scorecard` from the score file of the version; 95 % intervals by bootstrap over identities and",
    "clips. Nothing here was used for training, calibration or selection.",
)


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


def figures_of(path: Path, calibration: Calibration | None = None, *, rounds: int = 1000) -> dict[str, Any]:
    """Figures per validation set.

    Args:
        calibration: gives the undecided band, for coverage and the errors among decided ones.

    Returns:
        Per set (`dfdc`, ..., `clips`, and `pictures` for all of them together) a dictionary of counts and of figures
        `[value, low, high]`.
    """
    sets = split_into_sets(read_scores(path))
    return {name: _figures(part, calibration, rounds) for name, part in sets.items()}


def _figures(rows: Sequence[Row], calibration: Calibration | None, rounds: int) -> dict[str, Any]:
    labels, probabilities = labels_and_probabilities(rows)
    groups = np.array([row["group"] for row in rows])
    raw = np.array([[float(row[c]) if row[c] else np.nan for c in LOGIT_COLUMNS] for row in rows])
    measured = measures(rows, calibration, rounds)
    out: dict[str, Any] = {"real": int((labels < 0.5).sum()), "fake": int((labels > 0.5).sum())}
    out |= {name: measured[name] for name in MEASURED if name in measured}
    if "decided" in measured:
        out["coverage"] = measured["decided"][0]
    if "called_fake" in measured:
        out["false_alarms_decided"] = measured["called_fake"]

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


def judged(rows: Sequence[Row]) -> list[Row]:
    """The rows that have a score."""
    return [row for row in rows if row.get("outcome") not in NOT_JUDGED]


def measures(rows: Sequence[Row], calibration: Calibration | None, rounds: int) -> dict[str, list[float]]:
    """Figures `[value, low, high]` of rows: those of `MEASURED`, as far as their labels allow, and of verdicts.

    `decided` is the share with a verdict other than inconclusive, `called_fake` the share of the real ones with the
    verdict fake, `called_real` that of the fakes with the verdict real; none of them without a calibration.
    """
    labels, probabilities = labels_and_probabilities(rows)
    groups = [row["group"] for row in rows]
    wanted: dict[str, tuple[Callable[[Array, Array], float], Array]] = {"accuracy": (accuracy, probabilities)}
    if (labels < 0.5).any():
        wanted["false_alarms"] = (false_alarm_rate, probabilities)
    if (labels > 0.5).any():
        wanted["misses"] = (miss_rate, probabilities)
    if 0 < labels.mean() < 1:
        wanted |= {"auc": (auc, probabilities), "eer": (eer, probabilities), "ece": (ece, probabilities)}
    if calibration is not None:
        verdicts = np.array([{"fake": 1.0, "real": 0.0}.get(verdict_of(r, calibration), 0.5) for r in rows])
        wanted["decided"] = (_decided, verdicts)
        if "false_alarms" in wanted:
            wanted["called_fake"] = (partial(false_alarm_rate, threshold=1.0), verdicts)
        if "misses" in wanted:
            wanted["called_real"] = (_called_real, verdicts)
    return {
        name: rounded(bootstrap(statistic, labels, values, groups, rounds=rounds))
        for name, (statistic, values) in wanted.items()
    }


def _decided(labels: Array, verdicts: Array) -> float:
    return float((verdicts != 0.5).mean())


def _called_real(labels: Array, verdicts: Array) -> float:
    fake = labels > 0.5
    return float((verdicts[fake] == 0).mean()) if fake.any() else float("nan")


def scorecard_markdown(
    figures: Mapping[str, Any],
    version: str,
    pictures: Mapping[str, str] | None = None,
    further: Sequence[str] | None = None,
    intro: Sequence[str] = INTRO,
) -> str:
    """The figures as the text of `docs/results/scorecard.md`.

    Args:
        pictures: addresses of plots, by title.
        intro: lines that say what was measured.
    """
    heads = ("set", "real / fake", "AUC", "ECE before → after (by chance)", "false alarms", "misses", "decided",
             "real called fake")  # fmt: skip
    rows = [
        [
            name, f"{f['real']} / {f['fake']}", cell(f.get("auc")),
            f"{f['ece_before']:.3f} → {f['ece'][0]:.3f} ({f['ece_by_chance']:.3f})" if "ece" in f else "—",
            cell(f.get("false_alarms"), percent=True), cell(f.get("misses"), percent=True),
            f"{f['coverage']:.0%}" if "coverage" in f else "—", cell(f.get("false_alarms_decided"), percent=True),
        ]
        for name, f in figures.items()
    ]  # fmt: skip
    titles = [expert_card(name).title for name in EXPERT_NAMES]
    single = [
        [
            name,
            *(plain(f["experts"].get(expert)) for expert in EXPERT_NAMES),
            plain(f.get("plain_mean")),
            plain(f["auc"]),
        ]
        for name, f in figures.items()
        if "auc" in f
    ]
    lines = [
        f"# Scorecard of {version}",
        "",
        *intro,
        "False alarms and misses are those of a plain cut at 50 %; *decided* is the share that gets a",
        "verdict other than inconclusive, and *real called fake* the share of all real ones that get the verdict fake.",
        "In brackets beside the ECE: what perfectly calibrated probabilities would show on as few items by chance.",
        "",
        *markdown_table(heads, rows),
        "",
        "AUC of the single experts, of the plain mean of their logits, and of the ensemble:",
        "",
        *markdown_table(("set", *titles, "plain mean", "ensemble"), single),
        "",
        *(further or []),
    ]
    for title, address in (pictures or {}).items():
        lines += ["", f"![{title}]({address})"]
    return "\n".join(lines) + "\n"


def cell(figure: Sequence[float] | None, *, percent: bool = False) -> str:
    """A figure with its interval."""
    if figure is None:
        return "—"
    value, low, high = figure
    if percent:
        return f"{value:.1%} [{low:.1%}, {high:.1%}]"
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def plain(figure: Sequence[float] | None, *, percent: bool = False) -> str:
    """A figure alone."""
    return "—" if figure is None else f"{figure[0]:.1%}" if percent else f"{figure[0]:.3f}"


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a table; an empty head is a column without a name."""
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return [*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)]
