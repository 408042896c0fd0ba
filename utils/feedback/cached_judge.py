"""What a version says of cached features: by the head of its ViT, its gate, and the corrections that it remembers.

Every accepted label is a test from then on: `check_items` tells what the version in use says of it today.

No network changes by feedback; the answers of CNN, ResNeXt-50, BiLSTM and the ViT's backbone are cached, and
`frozen_fingerprint` says which of them made a cache. Only numpy, so that a training takes no seconds to load torch;
tests hold the head to `models.vision_transformer.TapHead`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import erf

from models.cards import EXPERT_NAMES
from utils.detection.calibration import calibration_from_dict
from utils.detection.engine import NumericGate, read_gate
from utils.detection.remembered import Remembered, mean_of_items, read_remembered
from utils.detection.verdict import outcome_of
from utils.errors import TrainingDataError, WeightsCorruptError
from utils.feedback.feature_set import CachedItem, FeatureSet, join_features
from utils.feedback.quarantine import LearningItem
from utils.log import get_logger
from utils.metrics import sigmoids
from utils.tensors import Arrays, read_tensors
from utils.types import Floats, Outcome
from utils.weights import (
    CALIBRATION_FILE,
    SPEECH_FOLDER,
    SPEECH_HEAD_FILE,
    Version,
    frozen_fingerprint,
    read_document,
    verify_version,
)

VIT_COLUMN = EXPERT_NAMES.index("vit")
NORM_EPSILON = 1e-5
"""Of torch's LayerNorm."""
STALE, DAMAGED = "stale", "damaged"
"""Why features cannot be used: they were made with other networks, or cannot be read."""
THRESHOLD = 0.5

log = get_logger(__name__)


@dataclass(frozen=True)
class CachedJudge:
    """Cached features in, calibrated logit of fake out, as the product computes it.

    Args:
        head: arrays of the ViT's head by name; None for versions without a ViT. Of a version of speech its own head.
        gate: of the version; None for one of speech, whose head is linear on the mean of a recording's windows.
        remembered: corrections, which move what `logits_of` gives; None for none.
    """

    head: Arrays | None
    gate: NumericGate | None
    remembered: Remembered | None = None


def load_parts(version: Version) -> CachedJudge:
    """What of a verified version judges cached features.

    Raises:
        WeightsCorruptError: its weights do not fit.
    """
    head = None
    if (version.folder / SPEECH_HEAD_FILE).is_file():
        return CachedJudge(read_tensors(version.folder / SPEECH_HEAD_FILE), None, read_remembered(version))
    if "vit" in version.experts:
        tensors = read_tensors(version.folder / "vit.safetensors")
        head = {k.removeprefix("head."): v for k, v in tensors.items() if k.startswith("head.")}
        if not {"norms.0.weight", "reduce.0.weight", "score.weight"} <= set(head):
            raise WeightsCorruptError("The weights of the ViT lack its head.")
    return CachedJudge(head, read_gate(version), read_remembered(version))


def head_logits(head: Arrays, tokens: Floats) -> Floats:
    """(F,) raw logits of the ViT's head on (F, L, 2D) tokens: `TapHead` in evaluation mode."""
    parts = []
    for tap in range(tokens.shape[1]):
        seen = tokens[:, tap]
        spread = np.sqrt(seen.var(1, keepdims=True) + np.float32(NORM_EPSILON))
        normal = (seen - seen.mean(1, keepdims=True)) / spread * head[f"norms.{tap}.weight"] + head[f"norms.{tap}.bias"]
        parts.append(normal @ head[f"reduce.{tap}.weight"].T + head[f"reduce.{tap}.bias"])
    feature = np.concatenate(parts, axis=1)
    feature = feature * (1 + erf(feature / np.sqrt(np.float32(2)))) / 2  # GELU
    out: Floats = (feature @ head["score.weight"][0] + head["score.bias"]).astype(np.float32)
    return out


def logits_of(parts: CachedJudge, features: FeatureSet) -> npt.NDArray[np.float64]:
    """(N,) calibrated logits of fake, with what is remembered."""
    tokens, logits = np.asarray(features.tokens, np.float32), np.array(features.logits, np.float32)
    if not len(features):
        return np.zeros(0)
    if parts.gate is None:
        return _voice_logits(parts, tokens, features.starts)
    if parts.head is not None:
        sums = np.add.reduceat(head_logits(parts.head, tokens), features.starts[:-1])
        logits[:, VIT_COLUMN] = sums / np.diff(features.starts)
    said = parts.gate.mix(logits, np.asarray(features.quality, np.float32)).logit.astype(np.float64)
    if parts.remembered is not None:
        said += parts.remembered.shift_items(tokens, features.starts)
    return np.asarray(said)


def _voice_logits(parts: CachedJudge, tokens: Floats, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    head = parts.head or {}
    windows = tokens[:, 0] @ head["weight"].astype(np.float32) + head["bias"].astype(np.float32)
    moved = 0.0 if parts.remembered is None else parts.remembered.shift(tokens)
    return mean_of_items(windows + moved, starts)


def probabilities(parts: CachedJudge, features: FeatureSet) -> npt.NDArray[np.float64]:
    """(N,) calibrated probabilities of fake."""
    return sigmoids(logits_of(parts, features))


@dataclass(frozen=True)
class Said:
    """What a version says of an item.

    Args:
        row_id: of the vote that stands for it.
        label: the actual one, 1 fake, 0 real.
        outcome: `real`, `fake` or `inconclusive`; empty where its features cannot be used.
        probability: of fake, calibrated; None likewise.
        version: that says it; empty where it is the one that was asked.
    """

    row_id: int
    label: int
    outcome: str
    probability: float | None
    version: str = ""


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


def check_items(items: Sequence[LearningItem], root: Path, name: str, speech: str | None = None) -> list[Said]:
    """What a version says of each face, and one of speech, where there is one, of each voice.

    Raises:
        WeightsError: it does not verify.
    """
    voices, faces = ([item for item in items if item.voice is voice] for voice in (True, False))
    said = _check(faces, verify_version(root, name))
    if voices and speech:
        said += _check(voices, verify_version(root / SPEECH_FOLDER, speech))
    return said


def _check(items: Sequence[LearningItem], version: Version) -> list[Said]:
    usable, reasons = load_items(items, frozen_fingerprint(version))
    scores = probabilities(load_parts(version), join_features(usable)) if usable else np.zeros(0)
    told = iter(zip(verdicts(scores, version), scores, strict=True))
    said = [Said(item.row_id, item.label, "", None, version.name) for item in items]
    for number, reason in enumerate(reasons):
        if not reason:
            outcome, score = next(told)
            said[number] = replace(said[number], outcome=outcome.value, probability=round(float(score), 6))
    return said
