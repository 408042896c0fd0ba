"""A trained network of speech as a version: its trunk as ONNX, its calibrated head, band, card and checksums."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.speech_model import SpeechNetwork
from utils.detection.calibration import Calibration
from utils.detection.export import export_onnx
from utils.speech.spectrogram import BANDS, WINDOW_FRAMES
from utils.weights import SPEECH_FILE, Version, publish_version


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
        root: the folder with the versions of speech.
        name: of the new version.
        network: trained.
        calibration: the bins and the undecided band.
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
