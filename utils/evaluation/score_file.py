"""Score files: a CSV with a row per picture or clip, which says what it is, each expert's raw logit, and the ensemble's
calibrated probability. Training writes one from its table of logits, `benchmarks/scoring.py` by analysing any files.

Every file has a row, also one without a face, one that is left undecided and one that cannot be read: what is not
judged is part of the result.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from models.cards import EXPERT_NAMES
from utils.errors import TrainingDataError

if TYPE_CHECKING:
    from models.gating import Gate

Array = npt.NDArray[np.float64]
TEXT_COLUMNS = ("file", "kind", "label", "source", "generator", "group")
LOGIT_COLUMNS = tuple(f"logit_{name}" for name in EXPERT_NAMES)
WEIGHT_COLUMNS = tuple(f"weight_{name}" for name in EXPERT_NAMES)
SCORE_COLUMNS = (*TEXT_COLUMNS, *LOGIT_COLUMNS, *WEIGHT_COLUMNS, "probability")
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
        return _table_of(
            (name, column[keep] if isinstance(column, np.ndarray) else tuple(compress(column, keep)))
            for name, column in vars(self).items()
        )


def join_tables(tables: Sequence[ScoreTable]) -> ScoreTable:
    """Several tables under each other."""
    columns = ((name, [getattr(table, name) for table in tables]) for name in vars(tables[0]))
    return _table_of(
        (name, np.concatenate(parts) if isinstance(parts[0], np.ndarray) else tuple(chain.from_iterable(parts)))
        for name, parts in columns
    )


def _table_of(columns: Iterable[tuple[str, Any]]) -> ScoreTable:
    return ScoreTable(**dict(columns))


def write_scores(path: Path, table: ScoreTable, gate: Gate) -> None:
    """Write a score file."""
    with torch.inference_mode():
        output = gate(torch.tensor(table.logits, dtype=torch.float32), torch.tensor(table.quality, dtype=torch.float32))
    probabilities = output.logit.sigmoid().numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(SCORE_COLUMNS)
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
