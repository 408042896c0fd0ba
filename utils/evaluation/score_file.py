"""Score files: a CSV with a row per picture or clip, which says what it is, each expert's raw logit, and the ensemble's
calibrated probability. Written from a table of logits, or by analysing any files with the product's own pipeline.

Every file becomes a row, also one without a face, one that is left undecided and one that cannot be read: what is not
judged is part of the result.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, compress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.cards import EXPERT_NAMES
from utils.detection.engine import NumericGate
from utils.detection.pipeline import Analyser, analyse
from utils.errors import MediaError, TrainingDataError
from utils.evaluation.layouts import Sample
from utils.faces.crops import QUALITY_NAMES
from utils.metrics import logit, sigmoids
from utils.types import Report

Array = npt.NDArray[np.float64]
TEXT_COLUMNS = ("file", "kind", "label", "source", "generator", "group")
LOGIT_COLUMNS = tuple(f"logit_{name}" for name in EXPERT_NAMES)
WEIGHT_COLUMNS = tuple(f"weight_{name}" for name in EXPERT_NAMES)
SCORE_COLUMNS = (*TEXT_COLUMNS, *LOGIT_COLUMNS, *WEIGHT_COLUMNS, "probability")
COLUMNS = (*SCORE_COLUMNS, "outcome", *(f"quality_{name}" for name in QUALITY_NAMES))
SCORES_FILE = "scores.csv"
FAILED = "failed"
"""Outcome of a file that could not be analysed; the others are those of `Outcome`."""
NOT_JUDGED = ("no_face", FAILED)
"""Outcomes of files that have no score."""


@dataclass(frozen=True)
class ScoreTable:
    """One row per picture or clip.

    Args:
        kinds: `image` or `video`.
        labels: (N,) 1 fake, 0 real.
        generators: what made it; `-` for real.
        groups: identity or family.
        logits: (N, E) raw logits in the order of `EXPERT_NAMES`, NaN where an expert does not judge.
        quality: (N, Q).
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    labels: Array
    sources: tuple[str, ...]
    generators: tuple[str, ...]
    groups: tuple[str, ...]
    logits: Array
    quality: Array

    def __post_init__(self) -> None:
        count = len(self.labels)
        columns = (self.names, self.kinds, self.sources, self.generators, self.groups, self.logits, self.quality)
        if any(len(column) != count for column in columns):
            raise ValueError("all columns must be equally long")

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, keep: npt.NDArray[np.bool_]) -> ScoreTable:
        """The rows where `keep` (N,) is true."""
        columns: dict[str, Any] = {
            name: column[keep] if isinstance(column, np.ndarray) else tuple(compress(column, keep))
            for name, column in vars(self).items()
        }
        return ScoreTable(**columns)


def join_tables(tables: Sequence[ScoreTable]) -> ScoreTable:
    """Several tables under each other."""
    columns: dict[str, Any] = {}
    for name in vars(tables[0]):
        parts = [getattr(table, name) for table in tables]
        columns[name] = np.concatenate(parts) if isinstance(parts[0], np.ndarray) else tuple(chain.from_iterable(parts))
    return ScoreTable(**columns)


def write_scores(path: Path, table: ScoreTable, gate: NumericGate) -> None:
    """Write a score file."""
    mixed = gate.mix(table.logits.astype(np.float32), table.quality.astype(np.float32))
    probabilities = sigmoids(mixed.logit.astype(np.float64))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(SCORE_COLUMNS)
        for i in range(len(table)):
            label = "fake" if table.labels[i] > 0.5 else "real"
            facts = [pseudonym(Path(table.names[i]).name), table.kinds[i], label]
            facts += [table.sources[i], table.generators[i], pseudonym(table.groups[i])]
            logits = ["" if np.isnan(v) else f"{v:.5f}" for v in table.logits[i]]
            weights = [f"{v:.4f}" for v in mixed.weights[i].tolist()]
            writer.writerow([*facts, *logits, *weights, f"{probabilities[i]:.6f}"])


def pseudonym(name: str) -> str:
    """Twelve digits that stand for a file or a person: score files are published, names of people are not."""
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def read_scores(path: Path, *, judged: bool = True) -> list[dict[str, str]]:
    """The rows of a score file.

    Args:
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


def score_files(samples: Collection[Sample], analyser: Analyser, path: Path) -> None:
    """Analyse every sample and append its row to a score file.

    Args:
        path: of the CSV; rows that are there already are not computed again. `PATH.json` beside it says which version
            and settings they are of.

    Raises:
        TrainingDataError: the file holds scores of another version or of other settings, or there is no sample.
    """
    if not samples:
        raise TrainingDataError("There are no files to score.")
    path.parent.mkdir(parents=True, exist_ok=True)
    claim_scores(path, analyser)
    done = finished_names(path)
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        if stream.tell() == 0:
            writer.writeheader()
        for sample in samples:
            name = pseudonym(str(sample.path.resolve()))
            if name not in done:
                writer.writerow(score_row(sample.path, sample, analyser) | {"file": name})
                stream.flush()
                done.add(name)


def score_row(path: Path, sample: Sample, analyser: Analyser) -> dict[str, str]:
    """One row of a score file, without its `file`: the analysis of `path`, which shows what `sample` says.

    Args:
        path: the file that is analysed; a degraded copy of the sample's own, for example.
    """
    row = dict.fromkeys(COLUMNS, "")
    row |= {
        "kind": sample.kind.value,
        "label": "fake" if sample.label else "real",
        "source": sample.source,
        "generator": sample.generator,
        "group": pseudonym(sample.group),
    }
    try:
        report = analyse(path, analyser)
    except MediaError:
        return row | {"outcome": FAILED}
    row["outcome"] = report.verdict.outcome.value
    return row | _numbers(report, analyser)


def _numbers(report: Report, analyser: Analyser) -> dict[str, str]:
    """Logits, weights, probability and quality of the deciding face; nothing without a face."""
    face = report.deciding
    if face is None or face.verdict.probability is None:
        return {}
    gate = getattr(analyser.engine, "gate", None)
    row = {"probability": f"{face.verdict.probability:.6f}"}
    for e, expert in enumerate(face.experts):
        if expert.probability is not None:
            row[LOGIT_COLUMNS[e]] = f"{_raw_logit(expert.probability, gate, e):.5f}"
        row[WEIGHT_COLUMNS[e]] = f"{expert.weight:.4f}"
    return row | {f"quality_{n}": f"{face.quality[n]:.4f}" for n in QUALITY_NAMES}


def _raw_logit(probability: float, gate: NumericGate | None, expert: int) -> float:
    """What the expert itself said, from its calibrated probability: the gate's Platt scaling is undone."""
    calibrated = logit(probability, 1e-9)
    if gate is None or float(gate.scale[expert]) <= 0:
        return calibrated
    return (calibrated - float(gate.shift[expert])) / float(gate.scale[expert])


def claim_scores(path: Path, analyser: Analyser) -> None:
    """Note beside a score file what it is of.

    Raises:
        TrainingDataError: it is of another version or of other settings.
    """
    detection, media = analyser.settings.detection, analyser.settings.media
    own = {
        "version": analyser.version,
        "sha256": analyser.version_sha256,
        "experts": list(analyser.experts),
        "threshold": detection.threshold,
        "frames": media.frames,
        "min_face_px": media.min_face_px,
    }
    note = path.with_name(path.name + ".json")
    if path.is_file() and note.is_file() and json.loads(note.read_text(encoding="utf-8")) != own:
        raise TrainingDataError(f"{path} holds scores of another version or of other settings; name another place.")
    note.write_text(json.dumps(own, indent=2) + "\n", encoding="utf-8")


def finished_names(path: Path, key: Callable[[Mapping[str, str]], str] = lambda row: row["file"]) -> set[str]:
    """Keys of the rows that are whole; what a stopped run left of its last row is cut off."""
    if not path.is_file():
        return set()
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as stream:
            stream.truncate(whole)
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return {key(row) for row in csv.DictReader(stream)}
    except (UnicodeDecodeError, csv.Error, KeyError) as error:
        raise TrainingDataError(f"{path.name} cannot be read as a score file: {error}.") from error
