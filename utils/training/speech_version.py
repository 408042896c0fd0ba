"""A trained network of speech as a version: its trunk as ONNX, its calibrated head, band, card and checksums."""

from __future__ import annotations

import dataclasses
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.cards import SPEECH
from models.speech_model import SpeechNetwork
from utils.detection.calibration import Calibration
from utils.detection.export import export_onnx
from utils.evaluation.speech_figures import calibrate, figures_of, write_scores
from utils.speech.spectrogram import BANDS, WINDOW_FRAMES
from utils.training.speech import SpeechPlan, all_views, fit, read_recordings, score, with_copies
from utils.weights import SPEECH_FILE, Version, publish_version, require_new_name


class _Trunk(nn.Module):
    """What the head reads, alone: a head that learned from feedback then leaves the graph as it is."""

    def __init__(self, network: SpeechNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, spectrogram: Tensor) -> Tensor:
        feature: Tensor = self.network(spectrogram).feature
        return feature


def publish_speech(
    root: Path,
    name: str,
    network: SpeechNetwork,
    calibration: Calibration,
    card: Mapping[str, Any],
    *,
    scale: float = 1.0,
    shift: float = 0.0,
) -> Version:
    """Write a version of the network of speech.

    Args:
        card: of the version; `tiny` in it for networks that no people shall be served with.
        scale: of its logits, from Platt scaling.
        shift: added to them then.

    Raises:
        WeightsError: the name is taken or not allowed.
    """
    head = {
        "weight": network.head.weight.detach().numpy()[0] * np.float32(scale),
        "bias": network.head.bias.detach().numpy() * np.float32(scale) + np.float32(shift),
    }
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / SPEECH_FILE
        axes = {"input": {0: "batch"}, "feature": {0: "batch"}}
        example = torch.zeros(2, WINDOW_FRAMES, BANDS)
        export_onnx(_Trunk(network.eval()), (example,), path, ["input"], ["feature"], axes)
        documents = {"calibration": calibration.to_dict(), "card": {**card, "name": name}}
        return publish_version(root, name, {"head": head}, documents, {SPEECH_FILE: path})


def train_speech(
    data: Path, run: Path, root: Path, name: str, plan: SpeechPlan, *, terms: Sequence[str], notes: Sequence[str]
) -> Version:
    """Train, calibrate and publish a version; a stopped run goes on where it was.

    Raises:
        TrainingDataError: the data cannot be used.
        WeightsError: the name is taken or not allowed.
    """
    require_new_name(root, name)
    recordings = with_copies(read_recordings(data), plan)
    views = all_views(recordings, plan, run / "views")
    network = fit(recordings, views, plan, run)
    scores = score(network, recordings, views)
    write_scores(scores, run / "scores.csv")
    scale, shift, calibration = calibrate(scores)
    counts = Counter(f"{r.split} {r.kind} {'fake' if r.label else 'real'}" for r in recordings)
    card = {
        "network": dataclasses.asdict(SPEECH),
        "plan": dataclasses.asdict(plan),
        "data": {"recordings": dict(sorted(counts.items())), "terms": list(terms)},
        "notes": list(notes),
        "validation": figures_of(scores),
    }
    return publish_speech(root, name, network, calibration, card, scale=scale, shift=shift)
