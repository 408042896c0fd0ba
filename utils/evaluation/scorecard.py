"""The page of a score file: every number in the README and the model card comes out of here.

python -m utils.evaluation.scorecard [--scores FILE] [--version NAME] [--out docs/results/scorecard.md]
python -m utils.evaluation.scorecard --data FOLDER [--split val] [--out runs/scorecard/scorecard.md]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from models.cards import EXPERT_NAMES, expert_card
from utils.config import load_settings
from utils.detection.calibration import Calibration, calibration_from_dict
from utils.detection.pipeline import load_analyser
from utils.errors import TelltaleError
from utils.evaluation.datasets import read_samples
from utils.evaluation.figures import (
    PICTURES,
    Row,
    count_verdicts,
    figures_of,
    generators,
    labels_and_probabilities,
    measures,
    real_sources,
    split_into_sets,
)
from utils.evaluation.score_file import NOT_JUDGED, SCORES_FILE, read_scores, score_files
from utils.weights import CALIBRATION_FILE, current_name, read_document, verify_version, weights_root

INTRO = (
    "Made by `make scorecard` from the score file of the version; 95 % intervals by bootstrap over identities and",
    "clips. Nothing here was used for training, calibration or selection.",
)


def scorecard_markdown(
    figures: Mapping[str, Any],
    version: str,
    pictures: Mapping[str, str] | None = None,
    further: Sequence[str] | None = None,
    intro: Sequence[str] = INTRO,
) -> str:
    """The figures as the text of `docs/results/scorecard.md`."""
    verdicts = ("false_alarms_decided", "cleared", "called_real")
    heads = ("set", "real / fake", "AUC", "ECE before → after (by chance)", "real called fake", "real called real",
             "fakes called real")  # fmt: skip
    rows = [
        [
            name, f"{f['real']} / {f['fake']}", cell(f.get("auc")),
            f"{f['ece_before']:.3f} → {f['ece'][0]:.3f} ({f['ece_by_chance']:.3f})" if "ece" in f else "—",
            *(cell(f.get(rate), percent=True) for rate in verdicts),
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
        "Files with neither verdict are inconclusive. ECE: calibration error before and after calibration; in brackets",
        "what perfectly calibrated probabilities would show on so few items by chance.",
        "",
        *markdown_table(heads, rows),
        "",
        "AUC of each expert, of the plain mean of their logits, and of the ensemble:",
        "",
        *markdown_table(("set", *titles, "plain mean", "ensemble"), single),
        "",
        *(further or []),
    ]
    for title, address in (pictures or {}).items():
        lines += ["", f"![{title}]({address})"]
    return "\n".join(lines) + "\n"


def breakdown_markdown(sets: Mapping[str, Sequence[Row]], calibration: Calibration, *, rounds: int = 1000) -> list[str]:
    """Lines of two tables, each generator and each source of real media, and how many files have no score.

    Args:
        sets: rows per set, those without a score included.
        calibration: whose band decides where a row has no verdict.
    """
    outcomes = [row.get("outcome") for name, of_set in sets.items() if name != PICTURES for row in of_set]
    without = [f"{n} {outcome.replace('_', ' ')}" for outcome in NOT_JUDGED if (n := outcomes.count(outcome))]
    made, real = [], []
    for name, beside in generators(sets).items():
        found = measures(beside, calibration, rounds)
        of_fakes = measures([row for row in beside if row["label"] == "fake"], calibration, rounds)
        count = sum(row["label"] == "real" for row in beside)
        shown = (found["called_real"], of_fakes["decided"])
        shares = (plain(figure, percent=True) for figure in shown)
        made.append([name, f"{count} / {len(beside) - count}", cell(found.get("auc")), *shares])
    for name, rows in real_sources(sets).items():
        if name in sets:  # which has a row of its own above
            continue
        found = measures(rows, calibration, rounds)
        shares = (plain(found[what], percent=True) for what in ("called_fake", "decided"))
        real.append([name, len(rows), *shares])
    return [
        *([f"Without a score: {', '.join(without)}.", ""] if without else []),
        "Each generator, with the real ones of its source for the AUC (each family of clips with all real clips):",
        "",
        *markdown_table(("generator", "real / fake", "AUC", "called real", "decided"), made),
        "",
        "Further sources of real media:",
        "",
        *markdown_table(("source", "real", "called fake", "decided"), real),
    ]


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


def write_scorecard(
    scores: Path, version: str, calibration: Calibration, out: Path, *, intro: Sequence[str] = INTRO, rounds: int = 1000
) -> str:
    """Write the scorecard with its plots, and give its text.

    Args:
        out: the page; plots go to `images/` beside it.
    """
    from utils.evaluation.plots import draw_all, plot_confusion  # only this command needs matplotlib

    sets = {name: labels_and_probabilities(part) for name, part in split_into_sets(read_scores(scores)).items()}
    everything = split_into_sets(read_scores(scores, judged=False))
    counts = {name: count_verdicts(part, calibration) for name, part in everything.items()}
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
    settings = load_settings()
    settings = replace(settings, weights=replace(settings.weights, version=version))
    samples = [s for s in read_samples(chosen.data) if chosen.split in ("all", s.split)]
    path = chosen.out.parent / SCORES_FILE
    score_files(tqdm(samples, "files scored", mininterval=5), load_analyser(settings), path)
    what = "all files" if chosen.split == "all" else f"the files of the split `{chosen.split}`"
    return path, (
        f"Made by `make scorecard DATA=...`: {what} of `{chosen.data.name}` ({len(samples)}), each through the",
        "product's own pipeline; 95 % intervals by bootstrap over groups.",
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
        calibration = calibration_from_dict(read_document(version.folder / CALIBRATION_FILE))
        scores: Path = chosen.scores or version.folder / SCORES_FILE
        intro: Sequence[str] = INTRO
        if chosen.data:
            chosen.out.parent.mkdir(parents=True, exist_ok=True)
            scores, intro = _score_data(chosen, version.name)
        print(write_scorecard(scores, version.name, calibration, chosen.out, intro=intro, rounds=chosen.rounds))
    except TelltaleError as error:
        print(error, file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
