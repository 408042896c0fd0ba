"""The page of a score file: every number in the README and the model card comes out of here.

A mean over sources hides the one that goes wrong, so every generator is measured beside the real media of its own
sources, and the false alarms of every real source stand alone.

    python -m benchmarks.scorecard [--scores FILE] [--version NAME] [--out docs/results/scorecard.md]
    python -m benchmarks.scorecard --data FOLDER [--split val] [--out runs/scorecard/scorecard.md]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.common import run_command
from benchmarks.plots import draw_all, plot_confusion
from benchmarks.scoring import score_files
from utils.config import load_settings
from utils.detection.calibration import Calibration, calibration_from_dict
from utils.detection.pipeline import load_analyser
from utils.evaluation.datasets import SPLITS, family_of, read_samples
from utils.evaluation.figures import (
    CLIPS,
    INTRO,
    MOST_ALONE,
    PICTURES,
    Row,
    cell,
    figures_of,
    judged,
    labels_and_probabilities,
    markdown_table,
    measures,
    plain,
    scorecard_markdown,
    split_into_sets,
    verdict_of,
)
from utils.evaluation.score_file import NOT_JUDGED, SCORES_FILE, read_scores
from utils.weights import CALIBRATION_FILE, current_name, read_document, verify_version, weights_root

Counts = dict[str, dict[str, int]]
MIN_REAL = 15
"""Sources with fewer real media cannot have a rate of their own."""


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


def count_verdicts(rows: Sequence[Row], calibration: Calibration) -> Counts:
    """How many real and fake ones got each verdict: label to verdict to number."""
    counts: Counts = {"real": {}, "fake": {}}
    for row in rows:
        of_label = counts[row["label"]]
        outcome = verdict_of(row, calibration)
        of_label[outcome] = of_label.get(outcome, 0) + 1
    return counts


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
        shown = (found["misses"], found["called_real"], of_fakes["decided"])
        shares = (plain(figure, percent=True) for figure in shown)
        made.append([name, f"{count} / {len(beside) - count}", cell(found.get("auc")), *shares])
    for name, rows in real_sources(sets).items():
        found = measures(rows, calibration, rounds)
        shares = (plain(found[what], percent=True) for what in ("false_alarms", "called_fake", "decided"))
        real.append([name, len(rows), *shares])
    return [
        *([f"Without a score: {', '.join(without)}.", ""] if without else []),
        "Each generator beside the real ones of the same source, and of clips each family beside all real clips:",
        "",
        *markdown_table(("generator", "real / fake", "AUC", "misses at 50 %", "called real", "decided"), made),
        "",
        "Each source of real media by itself:",
        "",
        *markdown_table(("source", "real", "false alarms at 50 %", "called fake", "decided"), real),
    ]


def write_scorecard(
    scores: Path, version: str, calibration: Calibration, out: Path, *, intro: Sequence[str] = INTRO, rounds: int = 1000
) -> str:
    """Write the scorecard with its plots, and give its text.

    Args:
        out: the page; plots go to `images/` beside it.
        intro: lines that say what was measured.
    """
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
    """Entry point of the command."""
    parser = argparse.ArgumentParser(description="Figures and plots of a score file, or of any files.")
    parser.add_argument("--scores", type=Path, help=f"the score file (default: {SCORES_FILE} of the version)")
    parser.add_argument(
        "--data", type=Path, help="score these files instead: a folder with manifests, or real/ and fake/"
    )
    parser.add_argument("--split", default="all", choices=("all", *SPLITS), help="which files of --data")
    parser.add_argument("--version", default="", help="whose calibration counts (default: the one in use)")
    parser.add_argument(
        "--out", type=Path, help="the page to write (default: docs/results/scorecard.md; with --data in runs/)"
    )
    parser.add_argument("--rounds", type=int, default=1000, help="of the bootstrap")
    return run_command(parser, arguments, _write_page)


def _write_page(chosen: argparse.Namespace) -> int:
    chosen.out = chosen.out or Path("runs/scorecard/scorecard.md" if chosen.data else "docs/results/scorecard.md")
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
