"""How far verdicts hold when a medium is re-encoded, rescaled, blurred, noisy, lit otherwise or coded as a video.

Every condition is applied to the same files and analysed by the product's own pipeline; the scores go to a file that
a stopped run goes on with, and from it to `docs/results/robustness.md`.

    python -m benchmarks.robustness --data FOLDER [--per-class 30] [--out docs/results/robustness.md]
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.common import data_parser, run_command, tell
from benchmarks.corruptions import CLEAN, CONDITIONS, FIRST, degraded
from utils.config import load_settings
from utils.detection.calibration import Calibration
from utils.detection.pipeline import Analyser, load_analyser
from utils.errors import TrainingDataError
from utils.evaluation.datasets import read_samples
from utils.evaluation.figures import CLIPS, PICTURES, judged, labels_and_probabilities, rounded, verdict_of
from utils.evaluation.layouts import Sample
from utils.evaluation.score_file import COLUMNS, claim_scores, finished_names, pseudonym, score_row
from utils.evaluation.scorecard import cell, markdown_table, plain
from utils.metrics import Figure, auc, bootstrap, false_alarm_rate
from utils.types import MediaKind

Array = npt.NDArray[np.float64]
Row = Mapping[str, str]
GOAL = 0.03
"""Most AUC that JPEG 50 or half the size may cost."""


def choose(samples: Sequence[Sample], per_class: int, clips: int | None = None) -> list[Sample]:
    """At most `per_class` pictures per source and label, as many real as fake where a source has both, and clips.

    A larger number gives those of a smaller one and more.

    Args:
        clips: per label; None takes all.
    """
    cells: dict[tuple[str, int], list[Sample]] = {}
    for sample in samples:
        if sample.kind is MediaKind.IMAGE:
            cells.setdefault((sample.source, sample.label), []).append(sample)
    chosen = []
    for (source, label), own in sorted(cells.items()):
        other = cells.get((source, 1 - label))
        count = min(per_class, len(own), len(other) if other else len(own))
        chosen += _draw(own, count)
    for label in (0, 1):
        own = [s for s in samples if s.kind is MediaKind.VIDEO and s.label == label]
        chosen += _draw(own, clips)
    return chosen


def _draw(samples: Sequence[Sample], count: int | None) -> list[Sample]:
    drawn = np.random.default_rng(0).permutation(len(samples))[:count]
    return [samples[int(i)] for i in np.sort(drawn)]


def score_conditions(
    samples: Sequence[Sample], analyser: Analyser, path: Path, *, progress: Callable[[int, int], None] | None = None
) -> None:
    """Analyse every sample under every condition that applies to it, and append the rows to a score file.

    Args:
        path: of the CSV; rows that are there are not computed again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    claim_scores(path, analyser)
    done = finished_names(path, lambda row: f"{row['file']} {row['condition']}")
    ordered = sorted(CONDITIONS, key=lambda c: FIRST.index(c.name) if c.name in FIRST else len(FIRST))
    work = [(s, c) for c in ordered for s in samples if c.applies_to(s.kind)]
    frames = analyser.settings.media.frames
    with path.open("a", newline="", encoding="utf-8") as stream, tempfile.TemporaryDirectory() as scratch:
        writer = csv.DictWriter(stream, ("condition", *COLUMNS), lineterminator="\n")
        if stream.tell() == 0:
            writer.writeheader()
        for number, (sample, condition) in enumerate(work, start=1):
            name = pseudonym(str(sample.path.resolve()))
            if f"{name} {condition.name}" not in done:
                copy = degraded(sample.path, sample.kind, condition, Path(scratch), frames=frames)
                row = score_row(copy, sample, analyser)
                writer.writerow(row | {"file": name, "condition": condition.name})
                stream.flush()
            if progress:
                progress(number, len(work))


def read_conditions(path: Path) -> dict[str, list[dict[str, str]]]:
    """Rows of a score file of conditions, per condition, in the order of the conditions.

    Raises:
        TrainingDataError: it is not there, is none, or lacks the clean condition.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingDataError(f"{path.name} cannot be read: {error}.") from error
    found = {c.name: [r for r in rows if r.get("condition") == c.name] for c in CONDITIONS}
    held = {name: own for name, own in found.items() if own}
    if CLEAN not in held:
        raise TrainingDataError(f"{path.name} holds no scores of clean files.")
    return held


@dataclass(frozen=True)
class Held:
    """What is left under one condition.

    Args:
        unjudged: of them had no face or could not be read.
        loss: AUC of the clean files minus this one, on the files judged under both.
        alarms: share of the real ones that get the verdict fake.
        flips: share of the files that go from real to fake or back.
        changed: share of the files whose verdict is another one in any way, undecided and no face included.
    """

    files: int
    unjudged: int
    auc: Figure
    loss: Figure
    alarms: Figure
    flips: float
    changed: float


def compare_conditions(
    clean: Sequence[Row], other: Sequence[Row], calibration: Calibration, *, rounds: int = 1000
) -> Held:
    """Figures of one condition beside the clean files."""
    before = {row["file"]: row for row in clean}
    pairs = [(before[row["file"]], row) for row in other if row["file"] in before]
    scored = [(a, b) for a, b in pairs if judged([a]) and judged([b])]
    labels, now = labels_and_probabilities([b for _, b in scored])
    _, then = labels_and_probabilities([a for a, _ in scored])
    groups = [b["group"] for _, b in scored]
    verdicts = [(verdict_of(a, calibration), verdict_of(b, calibration)) for a, b in pairs]
    fake = np.array([float(verdict_of(b, calibration) == "fake") for _, b in scored])

    def lost(drawn: Array, index: Array) -> float:
        chosen = index.astype(int)
        return auc(drawn, then[chosen]) - auc(drawn, now[chosen])

    return Held(
        files=len(pairs),
        unjudged=len(pairs) - len(judged([b for _, b in pairs])),
        auc=bootstrap(auc, labels, now, groups, rounds=rounds),
        loss=bootstrap(lost, labels, np.arange(len(labels), dtype=np.float64), groups, rounds=rounds),
        alarms=bootstrap(false_alarm_rate, labels, fake, groups, rounds=rounds),
        flips=float(np.mean([{a, b} == {"real", "fake"} for a, b in verdicts])),
        changed=float(np.mean([a != b for a, b in verdicts])),
    )


def robustness_markdown(found: Mapping[str, Mapping[str, Held]], version: str, what: str) -> str:
    """The page: one table per set."""
    lines = [
        f"# Robustness of {version}",
        "",
        f"Made by `python -m benchmarks.robustness`: {what}",
        "Every file was degraded, then judged by the product's own pipeline. *Loss*: AUC of the clean files minus that",
        f"of the degraded ones, 95 % interval by bootstrap over groups; the goal is at most {GOAL:.2f} for JPEG 50 and",
        "half the size. *Real called fake*: of the real ones. *Flips*: of all files, those that go from real to fake",
        "or back. *Changed*: those whose verdict changes in any way.",
    ]
    for name, conditions in found.items():
        heads = ("condition", "AUC", "loss", "real called fake", "flips", "changed")
        rows = (
            (
                f"{condition} ({held.unjudged} not judged)" if held.unjudged else condition, plain(rounded(held.auc)),
                cell(rounded(held.loss)), plain(rounded(held.alarms), percent=True), f"{held.flips:.1%}",
                f"{held.changed:.1%}",
            )
            for condition, held in conditions.items()
        )  # fmt: skip
        files = max(held.files for held in conditions.values())
        lines += ["", f"## {name.capitalize()} ({files})", "", *markdown_table(heads, rows)]
    return "\n".join(lines) + "\n"


def write_robustness(scores: Path, version: str, calibration: Calibration, out: Path, what: str) -> str:
    """Write the page from a score file of conditions, and give its text."""
    rows = read_conditions(scores)
    found: dict[str, dict[str, Held]] = {}
    for name, kind in ((PICTURES, "image"), (CLIPS, "video")):
        own = {c: [row for row in part if row["kind"] == kind] for c, part in rows.items()}
        if own[CLEAN]:
            found[name] = {c: compare_conditions(own[CLEAN], part, calibration) for c, part in own.items() if part}
    text = robustness_markdown(found, version, what)
    out.write_text(text, encoding="utf-8")
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.robustness`; exit code 3 when files or version cannot be used."""
    parser = data_parser("AUC, false alarms and changed verdicts under degradation.")
    parser.add_argument("--per-class", type=int, default=30, help="most pictures per source and label")
    parser.add_argument("--clips", type=int, help="most clips per label (default: all)")
    parser.add_argument("--scores", type=Path, default=Path("runs/robustness/scores.csv"), help="scores are kept here")
    parser.add_argument("--out", type=Path, default=Path("docs/results/robustness.md"), help="the page to write")
    return run_command(parser, arguments, _measure)


def _measure(chosen: argparse.Namespace) -> int:
    def told(done: int, total: int) -> None:
        if done % 50 == 0 or done == total:
            tell(f"{done}/{total} analyses")

    analyser = load_analyser(load_settings())
    wanted = [s for s in read_samples(chosen.data) if chosen.split in ("all", s.split)]
    samples = choose(wanted, chosen.per_class, chosen.clips)
    score_conditions(samples, analyser, chosen.scores, progress=told)
    sources = {s.source for s in samples if s.kind is MediaKind.IMAGE}
    clips = sum(s.kind is MediaKind.VIDEO for s in samples)
    what = (
        f"{len(samples) - clips} pictures of {len(sources)} sources, at most {chosen.per_class} per source and "
        f"label, and {clips} clips of the split `{chosen.split}`."
    )
    print(write_robustness(chosen.scores, analyser.version, analyser.calibration, chosen.out, what))
    return 0


if __name__ == "__main__":
    sys.exit(main())
