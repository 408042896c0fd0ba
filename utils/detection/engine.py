"""Run the ensemble on the crops of one medium: the only place of the product where torch computes.

`Engine` is a protocol, so that a faster backend can stand beside torch behind the same contract.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from models.ensemble_model import Ensemble
from models.registry import EXPERT_NAMES
from utils.cores import usable_cores
from utils.detection.distinct import distinct
from utils.errors import ConfigError
from utils.types import Floats, Pixels

BATCH = 16
"""Crops per forward pass; larger batches gain little on a CPU and cost memory."""


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


class TorchEngine:
    """The reference engine.

    Args:
        ensemble: in evaluation mode.
        device: cpu, cuda or auto (cuda where there is one).
        threads: of torch on the CPU; 0 uses all cores.

    Raises:
        ConfigError: cuda is asked for and not there.
    """

    def __init__(self, ensemble: Ensemble, *, device: str = "auto", threads: int = 0) -> None:
        has_cuda = torch.cuda.is_available() if device != "cpu" else False
        if device == "cuda" and not has_cuda:
            raise ConfigError("[detection] device is cuda, but torch finds no GPU here.")
        self.device = "cuda" if has_cuda else "cpu"
        torch.set_num_threads(threads or usable_cores())
        self._ensemble = ensemble.to(self.device).eval()

    @property
    def networks(self) -> Ensemble:
        """The networks themselves, for what needs gradients (heatmaps)."""
        return self._ensemble

    def score(
        self,
        tracks: Sequence[Sequence[Pixels]],
        quality: Sequence[Floats],
        on_batch: Callable[[float], None] | None = None,
    ) -> list[TrackScores]:
        """See `Engine.score`; all crops of all people go through the networks together."""
        crops, places = distinct([crop for track in tracks for crop in track])
        with torch.inference_mode():
            logits, features = self._forward(np.stack(crops), on_batch)
            logits, features = logits[places], None if features is None else features[places]
            out, start = [], 0
            for track, measured in zip(tracks, quality, strict=True):
                part = slice(start, start + len(track))
                start += len(track)
                of_track = features[part] if features is not None else None
                out.append(self._mix(logits[part], of_track, torch.from_numpy(measured)))
        return out

    def _forward(
        self, crops: Pixels, on_batch: Callable[[float], None] | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        logits, features = [], []
        for low in range(0, len(crops), BATCH):
            images = torch.from_numpy(crops[low : low + BATCH]).to(self.device).permute(0, 3, 1, 2).float().div(255)
            of_batch, feature = self._ensemble.expert_logits(images)
            logits.append(of_batch.cpu())
            if feature is not None:
                features.append(feature)
            if on_batch is not None:
                on_batch(min(1.0, (low + BATCH) / len(crops)))
        return torch.cat(logits), torch.cat(features) if features else None

    def _mix(self, logits: torch.Tensor, features: torch.Tensor | None, quality: torch.Tensor) -> TrackScores:
        gate = self._ensemble.gate.cpu()
        whole = logits.mean(0, keepdim=True)  # (1, E): NaN stays NaN
        whole[0, EXPERT_NAMES.index("lstm")] = self._ensemble.sequence_logit(features).cpu()
        mixed = gate(whole, quality.mean(0, keepdim=True))
        frames = gate(logits, quality) if not bool(torch.isnan(logits).all(1).any()) else mixed
        return TrackScores(
            logit=float(mixed.logit[0]),
            weights=mixed.weights[0].numpy(),
            expert_logits=mixed.calibrated[0].numpy(),
            frame_logits=frames.logit.expand(len(logits)).numpy(),
        )
