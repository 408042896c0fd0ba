"""Score files and the figures made from them: every number in the README and the model card comes out of here.

A score file is a CSV with one row per picture or clip: what it is, each expert's raw logit, and the ensemble's
calibrated probability. `figures_of` turns it into figures per set, with intervals by bootstrap over groups.

    python -m utils.evaluation.scorecard [--scores FILE] [--version NAME] [--out docs/results/scorecard.md]
    python -m utils.evaluation.scorecard --data FOLDER [--split val] [--out runs/scorecard/scorecard.md]
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit

from models.cards import EXPERT_NAMES, expert_card
from utils.config import load_settings
from utils.detection.calibration import Calibration, calibration_from_dict
from utils.errors import TelltaleError, TrainingDataError
from utils.metrics import (
    Figure,
    accuracy,
    auc,
    bootstrap,
    ece,
    ece_by_chance,
    eer,
    false_alarm_rate,
    miss_rate,
)
from utils.weights import CALIBRATION_FILE, current_name, verify_version, weights_root

if TYPE_CHECKING:
    from models.gating import Gate
    from utils.evaluation.scores import ScoreTable

Array = npt.NDArray[np.float64]
TEXT_COLUMNS = ("file", "kind", "label", "source", "generator", "group")
LOGIT_COLUMNS = tuple(f"logit_{name}" for name in EXPERT_NAMES)
WEIGHT_COLUMNS = tuple(f"weight_{name}" for name in EXPERT_NAMES)
SCORES_FILE = "scores.csv"
NOT_JUDGED = ("no_face", "failed")
"""Outcomes of files that have no score: no face, or they could not be read."""
INTRO = (
    "Made by `make scorecard` from the score file of the version; 95 % intervals by bootstrap over identities and",
    "clips. Nothing here was used for training, calibration or selection.",
)
CLIPS, PICTURES = "clips", "pictures"
"""Sets that join several sources: all clips, and all pictures where they have more than one source."""


def write_scores(path: Path, table: ScoreTable, gate: Gate) -> None:
    """Write a score file.

    Args:
        path: of the CSV.
        table: raw scores.
        gate: fitted; gives probability and weights.
    """
    with torch.inference_mode():
        output = gate(torch.tensor(table.logits, dtype=torch.float32), torch.tensor(table.quality, dtype=torch.float32))
    probabilities = output.logit.sigmoid().numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*TEXT_COLUMNS, *LOGIT_COLUMNS, *WEIGHT_COLUMNS, "probability"])
        for i in range(len(table)):
            label = "fake" if table.labels[i] > 0.5 else "real"
            facts = [pseudonym(Path(table.names[i]).name), table.kinds[i], label]
            facts += [table.sources[i], table.generators[i], pseudonym(table.groups[i])]
            logits = ["" if np.isnan(v) else f"{v:.5f}" for v in table.logits[i]]
            weights = [f"{v:.4f}" for v in output.weights[i].tolist()]
            writer.writerow([*facts, *logits, *weights, f"{probabilities[i]:.6f}"])


def pseudonym(name: str) -> str:
    """Twelve digits that stand for a file or a person: score files are published, names of people are not."""
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def read_scores(path: Path, *, judged: bool = True) -> list[dict[str, str]]:
    """The rows of a score file.

    Args:
        path: of the CSV.
        judged: leave out files without a face and files that could not be read: they have no numbers.

    Raises:
        TrainingDataError: it is not there, is not one, or is empty.
    """
    needed = {*TEXT_COLUMNS, *LOGIT_COLUMNS, "probability"}
    rows = []
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            if not needed <= set(reader.fieldnames or ()):
                raise TrainingDataError(f"{path.name} is not a score file: it lacks columns.")
            for row in reader:
                if row.get("outcome") in NOT_JUDGED:
                    if not judged:
                        rows.append(row)
                    continue
                if not _is_score(row):
                    raise TrainingDataError(f"{path.name}, line {reader.line_num}: this is not a score.")
                rows.append(row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingDataError(f"{path.name} cannot be read as a score file: {error}.") from error
    if not rows:
        raise TrainingDataError(f"{path.name} holds no scores.")
    return rows


def _is_score(row: Mapping[str, str | None]) -> bool:
    """Whether label, kind and numbers are of the expected form, with at least one expert's logit."""
    try:
        logits = [float(row[name] or "nan") for name in LOGIT_COLUMNS]
        probability = float(row["probability"] or "nan")
    except ValueError:
        return False
    named = row["label"] in ("real", "fake") and row["kind"] in ("image", "video")
    return named and 0 <= probability <= 1 and bool(np.isfinite(logits).any())


def split_into_sets(rows: Sequence[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    """Rows per set: each source of pictures, `clips`, and `pictures` for all of them where there are several."""
    sets: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        own = f"{row['source']} (source)" if row["source"] in (CLIPS, PICTURES) else row["source"]
        sets.setdefault(own if row["kind"] == "image" else CLIPS, []).append(row)
    pictures = [row for row in rows if row["kind"] == "image"]
    if len({row["source"] for row in pictures}) > 1:
        sets[PICTURES] = pictures
    return sets


def figures_of(path: Path, calibration: Calibration | None = None, *, rounds: int = 1000) -> dict[str, Any]:
    """Figures per validation set.

    Args:
        path: of a score file.
        calibration: gives the undecided band, for coverage and the errors among decided ones.
        rounds: of the bootstrap.

    Returns:
        Per set (`dfdc`, ..., `clips`, and `pictures` for all of them together) a dictionary of counts and of figures
        `[value, low, high]`.
    """
    sets = split_into_sets(read_scores(path))
    return {name: _figures(part, calibration, rounds) for name, part in sets.items()}


def _figures(rows: Sequence[Mapping[str, str]], calibration: Calibration | None, rounds: int) -> dict[str, Any]:
    labels, probabilities = labels_and_probabilities(rows)
    groups = [row["group"] for row in rows]
    raw = np.array([[float(row[c]) if row[c] else np.nan for c in LOGIT_COLUMNS] for row in rows])
    out: dict[str, Any] = {"real": int((labels < 0.5).sum()), "fake": int((labels > 0.5).sum())}
    measured: dict[str, Callable[[Array, Array], float]] = {"accuracy": accuracy}
    if out["real"]:
        measured["false_alarms"] = false_alarm_rate
    if out["fake"]:
        measured["misses"] = miss_rate
    if out["real"] and out["fake"]:
        measured |= {"auc": auc, "eer": eer, "ece": ece}
    for name, statistic in measured.items():
        out[name] = rounded(bootstrap(statistic, labels, probabilities, groups, rounds=rounds))
    if "ece" in measured:
        out["ece_before"] = round(ece(labels, expit(np.nanmean(raw, axis=1))), 4)
        out["ece_by_chance"] = round(ece_by_chance(probabilities), 4)
    if calibration is not None:
        band = calibration.band(0.5, 0)
        decided = (probabilities <= band[0]) | (probabilities >= band[1])
        out["coverage"] = round(float(decided.mean()), 4)
        if out["real"]:
            alarm = partial(false_alarm_rate, threshold=band[1])
            out["false_alarms_decided"] = rounded(bootstrap(alarm, labels, probabilities, groups, rounds=rounds))
    out["experts"] = {}
    for e, name in enumerate(EXPERT_NAMES):
        known = ~np.isnan(raw[:, e])
        if known.any() and 0 < labels[known].mean() < 1:
            names = [g for g, k in zip(groups, known, strict=True) if k]
            out["experts"][name] = rounded(bootstrap(auc, labels[known], raw[known, e], names, rounds=rounds))
    if "auc" in out:
        out["plain_mean"] = rounded(bootstrap(auc, labels, np.nanmean(raw, axis=1), groups, rounds=rounds))
    return out


def labels_and_probabilities(rows: Sequence[Mapping[str, str]]) -> tuple[Array, Array]:
    """(N,) labels, 1 fake, and (N,) calibrated probabilities."""
    labels = np.array([row["label"] == "fake" for row in rows], np.float64)
    return labels, np.array([float(row["probability"]) for row in rows])


def rounded(figure: Figure) -> list[float]:
    return [round(v, 4) for v in (figure.value, figure.low, figure.high)]


def _calibration_cell(figures: Mapping[str, Any]) -> str:
    if "ece" not in figures:
        return "—"
    return f"{figures['ece_before']:.3f} → {figures['ece'][0]:.3f} ({figures['ece_by_chance']:.3f})"


def scorecard_markdown(
    figures: Mapping[str, Any],
    version: str,
    pictures: Mapping[str, str] | None = None,
    further: Sequence[str] | None = None,
    intro: Sequence[str] = INTRO,
) -> str:
    """The figures as the text of `docs/results/scorecard.md`.

    Args:
        figures: from `figures_of`.
        version: its name.
        pictures: addresses of plots, by title.
        further: lines of more tables.
        intro: lines that say what was measured.
    """
    lines = [
        f"# Scorecard of {version}",
        "",
        *intro,
        "Accuracy, false alarms and misses are those of a plain cut at 50 %; *decided* is the share that gets a",
        "verdict other than inconclusive, and *real called fake* the share of all real ones that get the verdict fake.",
        "In brackets beside the ECE: what perfectly calibrated probabilities would show on as few items by chance.",
        "",
        "| set | real | fake | AUC | EER | accuracy | false alarms on real | misses | ECE before → after (by chance) "
        "| decided | real called fake |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, f in figures.items():
        cells = [name, str(f["real"]), str(f["fake"])]
        cells += [cell(f.get(k), percent=k != "auc") for k in ("auc", "eer", "accuracy", "false_alarms", "misses")]
        cells.append(_calibration_cell(f))
        cells.append(f"{f['coverage']:.0%}" if "coverage" in f else "—")
        cells.append(cell(f.get("false_alarms_decided"), percent=True))
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "AUC of the single experts, of the plain mean of their logits, and of the ensemble:", ""]
    lines += ["| set | " + " | ".join(_titles()) + " | plain mean | ensemble |"]
    lines.append("|---" * (len(EXPERT_NAMES) + 3) + "|")
    for name, f in figures.items():
        if "auc" in f:
            cells = [cell(f["experts"].get(e)) for e in EXPERT_NAMES]
            cells += [cell(f.get("plain_mean")), cell(f["auc"])]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", *(further or [])]
    for title, address in (pictures or {}).items():
        lines += ["", f"![{title}]({address})"]
    return "\n".join(lines) + "\n"


def _titles() -> list[str]:
    return [expert_card(name).title for name in EXPERT_NAMES]


def cell(figure: Sequence[float] | None, *, percent: bool = False) -> str:
    if figure is None:
        return "—"
    value, low, high = figure
    if percent:
        return f"{value:.1%} [{low:.1%}, {high:.1%}]"
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def write_scorecard(
    scores: Path, version: str, calibration: Calibration, out: Path, *, intro: Sequence[str] = INTRO, rounds: int = 1000
) -> str:
    """Write the scorecard with its plots, and give its text.

    Args:
        scores: the score file.
        version: name of the version that made it.
        calibration: of that version.
        out: the page; plots go to `images/` beside it.
        intro: lines that say what was measured.
        rounds: of the bootstrap.
    """
    from utils.evaluation.breakdown import breakdown_markdown, count_outcomes
    from utils.evaluation.plots import draw_all, plot_confusion  # only this command needs matplotlib

    sets = {name: labels_and_probabilities(part) for name, part in split_into_sets(read_scores(scores)).items()}
    everything = split_into_sets(read_scores(scores, judged=False))
    counts = {name: count_outcomes(part, calibration) for name, part in everything.items()}
    drawn = draw_all(sets, out.parent / "images")
    drawn["Outcomes"] = out.parent / "images" / "outcomes.png"
    plot_confusion(counts, drawn["Outcomes"])
    addresses = {title: path.relative_to(out.parent).as_posix() for title, path in drawn.items()}
    further = breakdown_markdown(everything, calibration, rounds=rounds)
    text = scorecard_markdown(figures_of(scores, calibration, rounds=rounds), version, addresses, further, intro)
    out.write_text(text, encoding="utf-8")
    return text


def _score_data(chosen: argparse.Namespace, version: str) -> tuple[Path, Sequence[str]]:
    """Score a folder through the product's pipeline; gives the score file and what the page says of it."""
    from utils.detection.pipeline import load_analyser
    from utils.evaluation.datasets import read_samples
    from utils.evaluation.score_files import score_files

    settings = load_settings()
    settings = replace(settings, weights=replace(settings.weights, version=version))
    samples = [s for s in read_samples(chosen.data) if chosen.split in ("all", s.split)]
    count = 0

    def tell(done: int) -> None:
        nonlocal count
        count = done
        if done % 20 == 0 or done == len(samples):
            print(f"{done}/{len(samples)} files", file=sys.stderr)

    path = chosen.out.parent / SCORES_FILE
    score_files(samples, load_analyser(settings), path, progress=tell)
    what = "all files" if chosen.split == "all" else f"the files of the split `{chosen.split}`"
    return path, (
        f"Made by `make scorecard DATA=...`: {what} of `{chosen.data.name}` ({count}), each through the product's own",
        "pipeline; 95 % intervals by bootstrap over groups.",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m utils.evaluation.scorecard`; exit code 3 when scores, files or version cannot be used."""
    parser = argparse.ArgumentParser(description="Figures and plots of a score file, or of any files.")
    parser.add_argument("--scores", type=Path, help=f"the score file (default: {SCORES_FILE} of the version)")
    parser.add_argument(
        "--data", type=Path, help="score these files instead: a folder with manifests, or real/ and fake/"
    )
    parser.add_argument(
        "--split", default="all", choices=("all", "train", "calib", "val"), help="which files of --data"
    )
    parser.add_argument("--version", default="", help="whose calibration counts (default: the one in use)")
    parser.add_argument(
        "--out", type=Path, help="the page to write (default: docs/results/scorecard.md; with --data in runs/)"
    )
    parser.add_argument("--rounds", type=int, default=1000, help="of the bootstrap")
    chosen = parser.parse_args(arguments)
    chosen.out = chosen.out or Path("runs/scorecard/scorecard.md" if chosen.data else "docs/results/scorecard.md")
    try:
        settings = load_settings()
        root = weights_root(settings)
        version = verify_version(root, chosen.version or settings.weights.version or current_name(root))
        document = json.loads((version.folder / CALIBRATION_FILE).read_text(encoding="utf-8"))
        scores: Path = chosen.scores or version.folder / SCORES_FILE
        intro: Sequence[str] = INTRO
        if chosen.data:
            chosen.out.parent.mkdir(parents=True, exist_ok=True)
            scores, intro = _score_data(chosen, version.name)
        calibration = calibration_from_dict(document)
        print(write_scorecard(scores, version.name, calibration, chosen.out, intro=intro, rounds=chosen.rounds))
    except TelltaleError as error:
        print(error, file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
