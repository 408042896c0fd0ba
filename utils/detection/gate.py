"""The gate in numpy: what `models.gating.Gate` computes, for processes that load no torch.

A test holds the two together; `models/gating.py` explains the formula.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.cards import EXPERT_NAMES
from utils.errors import WeightsCorruptError
from utils.tensors import read_tensors
from utils.types import Floats
from utils.weights import GATE_FILE, Version

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Mixture:
    """Answer of the gate.

    Args:
        logit: (B,) calibrated logit of fake.
        weights: (B, E) share of each expert; rows sum to 1, missing experts have 0.
        calibrated: (B, E) each expert's own calibrated logit; NaN where it is missing.
    """

    logit: Floats
    weights: Floats
    calibrated: Floats


class NumericGate:
    """The gate of one version.

    Args:
        arrays: of `gate.safetensors` or of a `Gate`'s state, by name.

    Raises:
        WeightsCorruptError: names or shapes are not those of a gate.
    """

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        count, quality = len(EXPERT_NAMES), np.size(arrays.get("quality_mean", ()))
        shapes = {
            "scale": (count,), "shift": (count,), "temperature": (), "offset": (), "quality_mean": (quality,),
            "quality_std": (quality,), "mix.weight": (count, 2 * count + quality), "mix.bias": (count,),
        }  # fmt: skip
        found = {name: np.shape(value) for name, value in arrays.items()}
        if found != shapes:
            wrong = sorted(n for n in {*found, *shapes} if found.get(n) != shapes.get(n))
            raise WeightsCorruptError(f"The weights of the gate do not fit its network: {', '.join(wrong)}.")
        self._arrays = {name: np.asarray(value, np.float32) for name, value in arrays.items()}

    @property
    def scale(self) -> Floats:
        """(E,) Platt scaling per expert: `calibrated = scale * raw + shift`."""
        return self._arrays["scale"]

    @property
    def shift(self) -> Floats:
        """(E,), see `scale`."""
        return self._arrays["shift"]

    def calibrate(self, logits: Floats) -> Floats:
        """Calibrated logits (B, E) of raw ones; NaN stays NaN."""
        out: Floats = self.scale * logits + self.shift
        return out

    def mix(self, logits: Floats, quality: Floats) -> Mixture:
        """Mix the experts.

        Args:
            logits: (B, E) float32 raw logits in the order of `EXPERT_NAMES`; NaN marks a missing expert.
            quality: (B, Q) float32 quality measurements.

        Raises:
            ValueError: a row has no expert at all.
        """
        a = self._arrays
        present = ~np.isnan(logits)  # (B, E)
        if not present.any(1).all():
            raise ValueError("at least one expert must be present in each row")
        calibrated = self.calibrate(logits)
        known = np.where(present, calibrated, np.float32(0))
        measured = np.clip((quality - a["quality_mean"]) / a["quality_std"], -3, 3)
        seen = np.concatenate([np.tanh(known / 4), present.astype(np.float32), measured], axis=1)
        scores = np.where(present, seen @ a["mix.weight"].T + a["mix.bias"], np.float32(-np.inf))
        powers = np.exp(scores - scores.max(1, keepdims=True))
        weights = powers / powers.sum(1, keepdims=True)
        logit = a["temperature"] * (weights * known).sum(1) + a["offset"]
        return Mixture(*(v.astype(np.float32) for v in (logit, weights, calibrated)))


def read_gate(version: Version) -> NumericGate:
    """The gate of a verified version.

    Raises:
        WeightsCorruptError: it cannot be read, or is none.
    """
    return NumericGate(read_tensors(version.folder / GATE_FILE))
