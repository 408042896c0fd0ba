"""Analyse labelled files with the product's own pipeline and write their score file (`utils/evaluation/score_file.py`).

Every file becomes a row, whatever comes of it; a stopped run goes on behind its last whole row.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from utils.detection.gate import NumericGate
from utils.detection.pipeline import Analyser, analyse
from utils.errors import MediaError, TrainingDataError
from utils.evaluation.datasets import Sample
from utils.evaluation.score_file import FAILED, LOGIT_COLUMNS, SCORE_COLUMNS, WEIGHT_COLUMNS, pseudonym
from utils.faces.crops import QUALITY_NAMES
from utils.metrics import logit
from utils.types import Report

COLUMNS = (*SCORE_COLUMNS, "outcome", *(f"quality_{name}" for name in QUALITY_NAMES))


def score_files(
    samples: Sequence[Sample], analyser: Analyser, path: Path, *, progress: Callable[[int], None] | None = None
) -> None:
    """Analyse every sample and append its row to a score file.

    Args:
        samples: the files; their order does not matter.
        path: of the CSV; rows that are there already are not computed again. `PATH.json` beside it says which version
            and settings they are of.
        progress: called with the number of samples done.

    Raises:
        TrainingDataError: the file holds scores of another version or of other settings, or there is no sample.
    """
    if not samples:
        raise TrainingDataError("There are no files to score.")
    path.parent.mkdir(parents=True, exist_ok=True)
    claim_scores(path, analyser)
    done = finished_names(path)
    tell = progress or (lambda count: None)
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        if stream.tell() == 0:
            writer.writeheader()
        for number, sample in enumerate(samples, start=1):
            name = pseudonym(str(sample.path.resolve()))
            if name not in done:
                writer.writerow(score_row(sample.path, sample, analyser) | {"file": name})
                stream.flush()
                done.add(name)
            tell(number)


def score_row(path: Path, sample: Sample, analyser: Analyser) -> dict[str, str]:
    """One row of a score file, without its `file`: the analysis of `path`, which shows what `sample` says.

    Args:
        path: the file that is analysed; a degraded copy of the sample's own, for example.
        sample: label, source, generator and group.
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
