"""Parity on labelled data: the served engine and torch in fp32 on the same crops, expert by expert and as an ensemble.

`python -m benchmarks.parity --data DIR`. The table in `utils/detection/precision.py` was chosen by what this measures.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from benchmarks.common import data_parser, run_command, tell
from models.cards import EXPERT_NAMES, expert_card
from utils.config import load_settings
from utils.detection.engine import Engine
from utils.detection.engines import load_engine
from utils.detection.pipeline import Analyser, examine, load_analyser
from utils.errors import MediaError, TrainingDataError
from utils.evaluation.datasets import read_samples
from utils.evaluation.layouts import Sample
from utils.evaluation.scorecard import markdown_table
from utils.metrics import auc
from utils.types import Floats, Pixels
from utils.weights import verify_version, weights_root

TOLERANCE = 0.02
"""Probabilities may differ by so much at the 99th percentile."""
AUC_TOLERANCE = 0.002
"""The AUC of an expert, and that of the ensemble, may differ by so much from the reference."""


class Labelled(NamedTuple):
    """A face of a labelled file, through its frames: 1 fake, 0 real; (S, S, 3) uint8 crops; (Q,) mean measurements."""

    label: int
    crops: Sequence[Pixels]
    quality: Floats


@dataclass(frozen=True)
class Compared:
    """One expert, or the ensemble, by the served engine and by the reference; `distance` of probabilities at p99."""

    name: str
    precision: str
    people: int
    distance: float
    auc: float
    reference_auc: float

    @property
    def auc_distance(self) -> float:
        """How far the AUC moved; NaN where one class is absent."""
        return abs(self.auc - self.reference_auc)

    @property
    def holds(self) -> bool:
        """Whether probability and AUC are within their tolerances; an AUC that is not defined is no fault."""
        return self.distance <= TOLERANCE and not self.auc_distance > AUC_TOLERANCE


def p99_probability_gap(reference: Floats, found: Floats) -> float:
    """99th percentile of the distance between two sets of probabilities, from their logits (N,); NaN counts as 1."""
    apart = np.abs(expit(reference.astype(np.float64)) - expit(found.astype(np.float64)))
    return float(np.quantile(np.nan_to_num(apart, nan=1.0), 0.99, method="higher"))


def compare(people: Sequence[Labelled], served: Engine, reference: Engine) -> list[Compared]:
    """Both engines on the same people, at least one; the gate of the served one mixes for both."""
    labels = np.array([person.label for person in people], np.float64)
    quality = np.stack([person.quality for person in people])
    found, wanted = (
        np.stack([engine.person_logits(engine.run(person.crops)) for person in people])
        for engine in (served, reference)
    )
    gate = served.gate
    columns = {"ensemble": [gate.mix(logits, quality).logit for logits in (found, wanted)]}
    calibrated = [gate.calibrate(logits) for logits in (found, wanted)]
    columns |= {name: [logits[:, column] for logits in calibrated] for column, name in enumerate(EXPERT_NAMES)}
    out = []
    for name, (mine, theirs) in columns.items():
        judged = ~np.isnan(theirs)
        if judged.any():
            aucs = [auc(labels[judged], values[judged].astype(np.float64)) for values in (mine, theirs)]
            distance = p99_probability_gap(theirs[judged], mine[judged])
            precision = served.precisions.get(name, "")
            out.append(Compared(name, precision, int(judged.sum()), distance, aucs[0], aucs[1]))
    return [*out[1:], out[0]]


def read_people(samples: Sequence[Sample], analyser: Analyser) -> Iterator[Labelled]:
    """The largest face of each file, for it is the one that the label speaks of; files without a face are left out."""
    for number, sample in enumerate(samples):
        try:
            judged = examine(sample.path, analyser).judged
        except MediaError as error:
            tell(f"{sample.path.name} is left out: {error}")
            continue
        if judged:
            yield Labelled(sample.label, [crop.pixels for crop in judged[0].crops], judged[0].quality.mean(0))
        if (number + 1) % 50 == 0:
            tell(f"{number + 1} of {len(samples)} files looked at")


def table(rows: Sequence[Compared]) -> str:
    """The comparison in Markdown."""
    heads = ("", "precision", "people", "probability apart (p99)", "AUC", "AUC of torch fp32", "AUC apart", "")
    cells = (
        (
            expert_card(row.name).title if row.name in EXPERT_NAMES else "ensemble", row.precision or "—", row.people,
            f"{row.distance:.4f}", f"{row.auc:.4f}", f"{row.reference_auc:.4f}", f"{row.auc_distance:.4f}",
            "holds" if row.holds else "misses",
        )
        for row in rows
    )  # fmt: skip
    return "\n".join(markdown_table(heads, cells))


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare and print; 0 where parity holds for all, 1 where it does not, 3 where it cannot be measured."""
    parser = data_parser("The served engine against torch in fp32: probabilities and AUC.")
    parser.add_argument("--items", type=int, default=300, help="so many files, drawn at random")
    parser.add_argument("--precision", help="of the served engine, as in [detection] precision")
    return run_command(parser, arguments, _measure)


def _measure(given: argparse.Namespace) -> int:
    settings = load_settings()
    if given.precision:
        settings = replace(settings, detection=replace(settings.detection, precision=given.precision))
    analyser = load_analyser(settings)
    served, root = analyser.engine, weights_root(settings)
    slow = replace(settings, detection=replace(settings.detection, engine="torch"))
    version = verify_version(root, analyser.version)
    reference, _ = load_engine(
        slow, root, version, device="cpu", threads=settings.detection.threads, experts=analyser.experts
    )
    samples = [s for s in read_samples(given.data) if given.split in ("all", s.split)]
    random.Random(8).shuffle(samples)  # noqa: S311 (not for secrets)
    people = list(read_people(samples[: given.items], analyser))
    if not people:
        raise TrainingDataError("No face was found in these files.")
    rows = compare(people, served, reference)
    print(f"{served.name} against torch fp32, {len(people)} faces; allowed: {TOLERANCE} and {AUC_TOLERANCE}.\n")
    print(table(rows))
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
