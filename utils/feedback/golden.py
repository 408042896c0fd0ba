"""The golden set: features of faces that nothing was trained or calibrated on, and what a version makes of them.

It is fixed and has a name; the gate of promotion (`golden_gate`) compares figures made here. It lies beside the
versions in `<weights>/learning/<version>/golden.safetensors` and belongs to the networks whose answers it holds.

    python -m utils.feedback.golden build --version v1 --features RUN/features --pack RUN/pack
    python -m utils.feedback.golden show
    python -m utils.feedback.golden add --label fake --name mine FILE...
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.base_weights import file_sha256
from utils.errors import TrainingDataError
from utils.feedback.feature_set import FeatureSet, load_features
from utils.feedback.replay import REPLAY_FILE, load_replay
from utils.feedback.trainable import LearnedParts, probabilities
from utils.fingerprint import frozen_fingerprint
from utils.metrics import accuracy, auc, ece
from utils.weights import Version, read_document

GOLDEN_FILE = "golden.safetensors"
CHECKSUM_FILE = "checksums.json"
LEARNING_FOLDER = "learning"
MIN_SLICE = 8
"""A slice with fewer items of its own says nothing that could be told from chance, so it is left out."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GoldenFigures:
    """What a version makes of a golden set.

    Args:
        auc: over all items.
        ece: over all items, 10 equally full bins.
        accuracy: at 50 %.
        slices: AUC per slice: `source X` its own real against its own fakes, `manipulation G` the fakes of generator G
            against all real ones, `real X` the real ones of source X against all fakes.
        count: items.
    """

    auc: float
    ece: float
    accuracy: float
    slices: Mapping[str, float]
    count: int

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, rounded to six digits."""
        plain = asdict(self)
        rounded = {k: round(v, 6) if isinstance(v, float) else v for k, v in plain.items()}
        return rounded | {"slices": {k: round(v, 6) for k, v in self.slices.items()}}


@dataclass(frozen=True)
class GoldenSet:
    """A named golden set.

    Args:
        name: of the set, with its number.
        sha256: of its file.
        features: with both labels.
        experts: fingerprint of the networks that made it.
    """

    name: str
    sha256: str
    features: FeatureSet
    experts: str

    def __post_init__(self) -> None:
        if len(np.unique(self.features.labels)) != 2:
            raise TrainingDataError(f"The golden set {self.name} needs real and fake items.")


@dataclass(frozen=True)
class Lineage:
    """What belongs to a trained version and to all that learned from it: the base itself, golden set, replay.

    Args:
        base: the trained version.
        golden: the shipped set first, then the user's own ones.
        replay: features of its training data.
    """

    base: Version
    golden: tuple[GoldenSet, ...]
    replay: FeatureSet


def load_lineage(base: Version, own: Path | None = None) -> Lineage:
    """Golden sets and replay buffer of a trained version, checked against it.

    Args:
        base: the trained version; its root holds `learning/<name>/`.
        own: folder with the user's own golden sets (`*.safetensors`), or None.

    Raises:
        TrainingDataError: there is none, it is damaged, or it was made with other networks.
    """
    folder = base.folder.parent / LEARNING_FOLDER / base.name
    if not (folder / GOLDEN_FILE).is_file():
        raise TrainingDataError(
            f"There is no golden set for version {base.name}, so nothing can be learned from feedback; "
            "docs/learning.md says how to build one."
        )
    checksums = read_document(folder / CHECKSUM_FILE)
    for name in (GOLDEN_FILE, REPLAY_FILE):
        if checksums.get(name) != file_sha256(folder / name):
            raise TrainingDataError(f"{base.name}/{name} is not the file that {CHECKSUM_FILE} lists.")
    fingerprint = frozen_fingerprint(base)
    sets = [read_golden(folder / GOLDEN_FILE, fingerprint)]
    for path in sorted(own.glob("*.safetensors")) if own is not None and own.is_dir() else []:
        sets.append(read_golden(path, fingerprint))
    replay, facts = load_replay(folder)
    _check_experts(facts, fingerprint, REPLAY_FILE)
    return Lineage(base, tuple(sets), replay)


def read_golden(path: Path, fingerprint: str) -> GoldenSet:
    """Read a golden set that was made with the networks of `fingerprint`.

    Raises:
        TrainingDataError: it is damaged, of other networks, or has only one label.
    """
    features, facts = load_features(path)
    _check_experts(facts, fingerprint, path.name)
    return GoldenSet(facts.get("name", path.stem), file_sha256(path), features, facts["experts"])


def _check_experts(facts: Mapping[str, str], fingerprint: str, what: str) -> None:
    if facts.get("experts") != fingerprint:
        raise TrainingDataError(
            f"{what} holds answers of other networks than those of the version in use; build it again for this version."
        )


def score_golden(parts: LearnedParts, golden: GoldenSet) -> GoldenFigures:
    """Figures of a version on a golden set."""
    return figures(golden.features, probabilities(parts, golden.features))


def figures(features: FeatureSet, scores: Array) -> GoldenFigures:
    """Figures of given probabilities.

    Args:
        features: labels, sources and generators.
        scores: (N,) probabilities of fake.
    """
    labels = features.labels.astype(np.float64)
    return GoldenFigures(
        auc=auc(labels, scores),
        ece=ece(labels, scores),
        accuracy=accuracy(labels, scores),
        slices=_slices(features, labels, scores),
        count=len(features),
    )


def _slices(features: FeatureSet, labels: Array, scores: Array) -> dict[str, float]:
    sources = np.array(["video" if s.startswith("video") else s for s in features.sources])
    generators = np.array([g.split(" (")[0] for g in features.generators])
    real, fake = labels == 0, labels == 1
    masks: dict[str, npt.NDArray[np.bool_]] = {}
    for source in np.unique(sources):
        of_source = sources == source
        if (of_source & real).sum() >= MIN_SLICE and (of_source & fake).sum() >= MIN_SLICE:
            masks[f"source {source}"] = of_source
        if (of_source & real).sum() >= MIN_SLICE:
            masks[f"real {source}"] = (of_source & real) | fake
    for generator in np.unique(generators[fake]):
        chosen = (generators == generator) & fake
        if chosen.sum() >= MIN_SLICE:
            masks[f"manipulation {generator}"] = chosen | real
    return {name: auc(labels[mask], scores[mask]) for name, mask in masks.items()}


if __name__ == "__main__":
    from utils.training.golden_build import main

    sys.exit(main())
