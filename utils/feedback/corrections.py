"""Every accepted label is a test from then on: what the version in use says of it today, from its cached features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from utils.detection.calibration import calibration_from_dict
from utils.detection.verdict import outcome_of
from utils.errors import TrainingDataError
from utils.feedback.cached_judge import load_parts, probabilities
from utils.feedback.feature_set import CachedItem, FeatureSet, join_features
from utils.feedback.quarantine import LearningItem
from utils.log import get_logger
from utils.types import Outcome
from utils.weights import CALIBRATION_FILE, Version, frozen_fingerprint, read_document, verify_version

STALE, DAMAGED = "stale", "damaged"
"""Why features cannot be used: they were made with other networks, or cannot be read."""
THRESHOLD = 0.5

log = get_logger(__name__)


@dataclass(frozen=True)
class Said:
    """What a version says of an item.

    Args:
        row_id: of the vote that stands for it.
        label: the actual one, 1 fake, 0 real.
        outcome: `real`, `fake` or `inconclusive`; empty where its features cannot be used.
        probability: of fake, calibrated; None likewise.
    """

    row_id: int
    label: int
    outcome: str
    probability: float | None


def load_items(items: Sequence[LearningItem], fingerprint: str) -> tuple[list[FeatureSet], list[str]]:
    """The features of items that were made with the networks of `fingerprint`; for each item why not, else empty."""
    usable: list[FeatureSet] = []
    reasons: list[str] = []
    for item in items:
        try:
            cached = CachedItem.load(item.features)
            features = cached.as_features(label=item.label, source=item.source, key=item.media_sha256)
        except (TrainingDataError, ValueError) as error:  # one bad file shall not keep all others from being learned
            log.warning("%s of %s is left out: %s", item.features.name, item.media_sha256[:12], error)
            reasons.append(DAMAGED)
            continue
        reasons.append("" if cached.experts == fingerprint else STALE)
        if not reasons[-1]:
            usable.append(features)
    return usable, reasons


def borders(version: Version) -> tuple[float, float]:
    """Probabilities at or below which a version says `real`, and at or above which it says `fake`."""
    return calibration_from_dict(read_document(version.folder / CALIBRATION_FILE)).band(THRESHOLD, missing=0)


def verdicts(scores: npt.NDArray[np.float64], version: Version) -> list[Outcome]:
    """The verdict on each probability, with the undecided band of a version."""
    band = borders(version)
    return [outcome_of(float(score), band) for score in scores]


def right_verdicts(
    labels: npt.NDArray[np.float32], scores: npt.NDArray[np.float64], version: Version
) -> npt.NDArray[np.bool_]:
    """(N,) which verdicts say what the label says; an inconclusive one does not."""
    said = np.array([outcome.value for outcome in verdicts(scores, version)], "U12")
    return np.asarray(said == np.where(labels > 0.5, Outcome.FAKE.value, Outcome.REAL.value))


def check_items(items: Sequence[LearningItem], root: Path, name: str) -> list[Said]:
    """What a version says of each item.

    Raises:
        WeightsError: it does not verify.
    """
    version = verify_version(root, name)
    usable, reasons = load_items(items, frozen_fingerprint(version))
    scores = probabilities(load_parts(version), join_features(usable)) if usable else np.zeros(0)
    told = iter(zip(verdicts(scores, version), scores, strict=True))
    said = [Said(item.row_id, item.label, "", None) for item in items]
    for number, reason in enumerate(reasons):
        if not reason:
            outcome, score = next(told)
            said[number] = Said(items[number].row_id, items[number].label, outcome.value, round(float(score), 6))
    return said
