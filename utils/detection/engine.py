"""Run the ensemble on the crops of one medium: what an engine is, and all that its backends share.

`TorchEngine` (`torch_engine.py`) is the reference, `OpenVinoEngine` (`openvino_engine.py`) the fast one on a
processor; `engines.py` chooses. A backend only computes experts; batching, tracks and the gate are here, once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from models.cards import EXPERT_NAMES, MIN_SEQUENCE
from utils.detection.gate import NumericGate
from utils.detection.unique_crops import distinct
from utils.types import Floats, Pixels

if TYPE_CHECKING:
    from models.ensemble_model import Ensemble

BATCH = 16
"""Crops per forward pass; larger batches gain little on a CPU and cost memory."""
LSTM_COLUMN = EXPERT_NAMES.index("lstm")


@dataclass(frozen=True)
class TrackScores:
    """What the ensemble says of one person.

    Args:
        logit: calibrated logit of fake.
        weights: (E,) shares of the experts, in the order of `EXPERT_NAMES`.
        expert_logits: (E,) calibrated logits of the experts over the track, NaN where missing.
        frame_logits: (T,) calibrated logits frame by frame, image experts only.
    """

    logit: float
    weights: Floats
    expert_logits: Floats
    frame_logits: Floats


class Engine(Protocol):
    """Scores the crops of several people at once."""

    @property
    def name(self) -> str:
        """`torch` or `openvino`, as in the setting."""
        ...

    @property
    def precisions(self) -> Mapping[str, str]:
        """What each loaded expert computes with: fp32, fp16, bf16 or int8."""
        ...

    @property
    def networks(self) -> Ensemble:
        """The networks in torch, for what needs gradients or features; may have to be loaded, so hold on to them."""
        ...

    def score(
        self,
        tracks: Sequence[Sequence[Pixels]],
        quality: Sequence[Floats],
        on_batch: Callable[[float], None] | None = None,
    ) -> list[TrackScores]:
        """Score each track.

        Args:
            tracks: per person the (S, S, 3) uint8 crops in time order.
            quality: per person (T, Q) measurements of the crops.
            on_batch: told the share of the crops that are done, 0..1, after each batch; what it raises ends the work.
        """
        ...


class BatchedEngine(ABC):
    """Batches and tracks over a backend that computes experts.

    Args:
        gate: of the version.
        batch: crops per forward pass.
    """

    def __init__(self, gate: NumericGate, *, batch: int = BATCH) -> None:
        self.gate = gate
        self.batch = batch

    @property
    @abstractmethod
    def precisions(self) -> Mapping[str, str]:
        """See `Engine.precisions`."""

    @abstractmethod
    def image_logits(self, crops: Pixels, only: Collection[str] | None = None) -> tuple[Floats, Floats | None]:
        """Run the image experts on a batch.

        Args:
            crops: (B, S, S, 3) uint8.
            only: names of those that are asked; None asks all.

        Returns:
            (B, E) float32 raw logits, NaN for experts that are missing, not asked or judge only sequences, and the
            (B, D) features of ResNeXt-50, None without it.
        """

    @abstractmethod
    def sequence_logit(self, features: Floats) -> float:
        """The LSTM's raw logit of one track's (T, D) features; NaN without an LSTM."""

    def score(
        self,
        tracks: Sequence[Sequence[Pixels]],
        quality: Sequence[Floats],
        on_batch: Callable[[float], None] | None = None,
    ) -> list[TrackScores]:
        """See `Engine.score`; all crops of all people go through the networks together."""
        crops, places = distinct([crop for track in tracks for crop in track])
        parts, seen = [], []
        for low in range(0, len(crops), self.batch):
            logits, features = self.image_logits(np.stack(crops[low : low + self.batch]))
            parts.append(logits)
            if features is not None:
                seen.append(features)
            if on_batch is not None:
                on_batch(min(1.0, (low + self.batch) / len(crops)))
        out, start = [], 0
        all_logits = np.concatenate(parts)[places] if parts else np.empty((0, len(EXPERT_NAMES)), np.float32)
        all_features = np.concatenate(seen)[places] if seen else None
        for track, measured in zip(tracks, quality, strict=True):
            part = slice(start, start + len(track))
            start += len(track)
            sequence = float("nan")
            if all_features is not None and len(track) >= MIN_SEQUENCE:
                sequence = self.sequence_logit(all_features[part])
            out.append(self.mix(all_logits[part], sequence, measured))
        return out

    def raw_logits(self, crops: Pixels) -> Floats:
        """What each expert says of one person over all crops, before calibration.

        Args:
            crops: (T, S, S, 3) uint8 in time order.

        Returns:
            (E,) float32, NaN for experts that do not judge this person.
        """
        logits, features = zip(
            *(self.image_logits(crops[low : low + self.batch]) for low in range(0, len(crops), self.batch)), strict=True
        )
        whole: Floats = np.concatenate(logits).mean(0)
        seen = [part for part in features if part is not None]
        if seen and len(crops) >= MIN_SEQUENCE:
            whole[LSTM_COLUMN] = self.sequence_logit(np.concatenate(seen))
        return whole

    def mix(self, logits: Floats, sequence: float, quality: Floats) -> TrackScores:
        """What the gate makes of one person's logits.

        Args:
            logits: (T, E) raw ones of the image experts.
            sequence: the LSTM's raw logit; NaN without one.
            quality: (T, Q) measurements of the crops.
        """
        whole = logits.mean(0)  # (E,): NaN stays NaN
        whole[LSTM_COLUMN] = sequence
        mixed = self.gate.mix(whole[None], quality.mean(0)[None])
        alone = bool(np.isnan(logits).all(1).any())  # no image expert: nothing to say of single frames
        frames = mixed.logit if alone else self.gate.mix(logits, quality).logit
        return TrackScores(
            logit=float(mixed.logit[0]),
            weights=mixed.weights[0],
            expert_logits=mixed.calibrated[0],
            frame_logits=np.broadcast_to(frames, len(logits)).copy(),
        )
