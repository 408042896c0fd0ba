"""What a version says of cached features: by the head of its ViT, its gate, and the corrections that it remembers.

No network changes by feedback; the answers of CNN, ResNeXt-50, BiLSTM and the ViT's backbone are cached, and
`frozen_fingerprint` says which of them made a cache. Only numpy, so that a training takes no seconds to load torch;
tests hold the head to `models.vision_transformer.TapHead`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import erf

from models.cards import EXPERT_NAMES
from utils.detection.gate import NumericGate
from utils.detection.remembered import Remembered, read_remembered
from utils.errors import WeightsCorruptError
from utils.feedback.feature_set import FeatureSet
from utils.metrics import sigmoids
from utils.tensors import Arrays, read_tensors
from utils.types import Floats
from utils.weights import Version, read_gate

VIT_COLUMN = EXPERT_NAMES.index("vit")
NORM_EPSILON = 1e-5
"""Of torch's LayerNorm."""


@dataclass(frozen=True)
class CachedJudge:
    """Cached features in, calibrated logit of fake out, as the product computes it.

    Args:
        head: arrays of the ViT's head by name; None for versions without a ViT.
        gate: of the version.
        remembered: corrections, which move what `logits_of` gives; None for none.
    """

    head: Arrays | None
    gate: NumericGate
    remembered: Remembered | None = None


def load_parts(version: Version) -> CachedJudge:
    """What of a verified version judges cached features.

    Raises:
        WeightsCorruptError: its weights do not fit.
    """
    head = None
    if "vit" in version.experts:
        tensors = read_tensors(version.folder / "vit.safetensors")
        head = {k.removeprefix("head."): v for k, v in tensors.items() if k.startswith("head.")}
        if not {"norms.0.weight", "reduce.0.weight", "score.weight"} <= set(head):
            raise WeightsCorruptError("The weights of the ViT lack its head.")
    return CachedJudge(head, NumericGate(read_gate(version)), read_remembered(version))


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
    if parts.head is not None:
        sums = np.add.reduceat(head_logits(parts.head, tokens), features.starts[:-1])
        logits[:, VIT_COLUMN] = sums / np.diff(features.starts)
    said = parts.gate.mix(logits, np.asarray(features.quality, np.float32)).logit.astype(np.float64)
    if parts.remembered is not None:
        said += parts.remembered.shift_items(tokens, features.starts)
    return np.asarray(said)


def probabilities(parts: CachedJudge, features: FeatureSet) -> npt.NDArray[np.float64]:
    """(N,) calibrated probabilities of fake."""
    return sigmoids(logits_of(parts, features))
