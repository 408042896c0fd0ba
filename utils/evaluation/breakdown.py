"""Tables of a score file beyond the sets: verdicts, generator by generator, and each source of real media by itself.

A mean over sources hides the one that goes wrong, so every generator is measured beside the real media of its own
sources, and the false alarms of every real source stand alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from utils.detection.calibration import Calibration
from utils.evaluation.families import family_of
from utils.evaluation.scorecard import CLIPS, NOT_JUDGED, PICTURES, cell, labels_and_probabilities, rounded
from utils.metrics import accuracy, auc, bootstrap, eer, false_alarm_rate, miss_rate

MIN_REAL = 5
"""Sources with fewer real media cannot have a rate of their own."""
Array = npt.NDArray[np.float64]
Row = Mapping[str, str]
Counts = dict[str, dict[str, int]]


def outcome_of(row: Row, calibration: Calibration) -> str:
    """The verdict of a row: what the pipeline said, or where only a probability is known, what the band says of it."""
    if row.get("outcome"):
        return row["outcome"]
    real_below, fake_above = calibration.band(0.5, 0)
    probability = float(row["probability"])
    if probability >= fake_above:
        return "fake"
    return "real" if probability <= real_below else "inconclusive"


def count_outcomes(rows: Sequence[Row], calibration: Calibration) -> Counts:
    """How many real and fake ones got each verdict: label to verdict to number."""
    counts: Counts = {"real": {}, "fake": {}}
    for row in rows:
        of_label = counts[row["label"]]
        outcome = outcome_of(row, calibration)
        of_label[outcome] = of_label.get(outcome, 0) + 1
    return counts


def judged(rows: Sequence[Row]) -> list[Row]:
    """The rows that have a score."""
    return [row for row in rows if row.get("outcome") not in NOT_JUDGED]


def measures(rows: Sequence[Row], calibration: Calibration, rounds: int) -> dict[str, list[float]]:
    """Figures `[value, low, high]` of rows: `auc` and `eer` with both labels, else what one label allows.

    `decided` is the share with a verdict other than inconclusive, `called_fake` the share of the real ones with the
    verdict fake, `called_real` that of the fakes with the verdict real.
    """
    labels, probabilities = labels_and_probabilities(rows)
    groups = [row["group"] for row in rows]
    verdicts = np.array([{"fake": 1.0, "real": 0.0}.get(outcome_of(r, calibration), 0.5) for r in rows])
    wanted: dict[str, tuple[Callable[[Array, Array], float], Array]] = {"decided": (_decided, verdicts)}
    if (labels < 0.5).any():
        wanted |= {"false_alarms": (false_alarm_rate, probabilities)}
        wanted |= {"called_fake": (partial(false_alarm_rate, threshold=1.0), verdicts)}
    if (labels > 0.5).any():
        wanted |= {"misses": (miss_rate, probabilities), "called_real": (_called_real, verdicts)}
    if 0 < labels.mean() < 1:
        wanted |= {"auc": (auc, probabilities), "eer": (eer, probabilities), "accuracy": (accuracy, probabilities)}
    return {
        name: rounded(bootstrap(statistic, labels, values, groups, rounds=rounds))
        for name, (statistic, values) in wanted.items()
    }


def _decided(labels: Array, verdicts: Array) -> float:
    return float((verdicts != 0.5).mean())


def _called_real(labels: Array, verdicts: Array) -> float:
    fake = labels > 0.5
    return float((verdicts[fake] == 0).mean()) if fake.any() else float("nan")


def breakdown_markdown(sets: Mapping[str, Sequence[Row]], calibration: Calibration, *, rounds: int = 1000) -> list[str]:
    """Lines of three tables: verdicts per set, each generator, each source of real media.

    Args:
        sets: rows per set, those without a score included.
        calibration: whose band decides where a row has no verdict.
        rounds: of the bootstrap.
    """
    lines = ["Verdicts; files without a face and unreadable ones get none:", ""]
    lines += [
        "| set | truth | files | real | inconclusive | fake | no face | unreadable |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in sets.items():
        for label, counts in count_outcomes(rows, calibration).items():
            total = sum(counts.values())
            if total:
                cells = [
                    f"{counts.get(o, 0)} ({counts.get(o, 0) / total:.0%})" for o in ("real", "inconclusive", "fake")
                ]
                cells += [str(counts.get(o, 0)) for o in NOT_JUDGED]
                lines.append(f"| {name} | {label} | {total} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "Each generator beside the real ones of the same source, and of clips each family beside all real clips:",
        "",
    ]
    lines += [
        "| generator | real | fake | AUC | EER | accuracy | misses at 50 % | called real | decided |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, beside in generators(sets).items():
        found = measures(beside, calibration, rounds)
        of_fakes = measures([row for row in beside if row["label"] == "fake"], calibration, rounds)
        cells = [cell(found.get("auc"))]
        cells += [cell(found.get(k), percent=True) for k in ("eer", "accuracy", "misses", "called_real")]
        cells.append(cell(of_fakes["decided"], percent=True))
        real = sum(row["label"] == "real" for row in beside)
        lines.append(f"| {name} | {real} | {len(beside) - real} | " + " | ".join(cells) + " |")
    lines += ["", "Each source of real media by itself:", ""]
    lines += ["| source | real | false alarms at 50 % | called fake | decided |", "|---|---|---|---|---|"]
    for name, rows in real_sources(sets).items():
        found = measures(rows, calibration, rounds)
        cells = [cell(found[k], percent=True) for k in ("false_alarms", "called_fake", "decided")]
        lines.append(f"| {name} | {len(rows)} | " + " | ".join(cells) + " |")
    return lines


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
    return out


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
