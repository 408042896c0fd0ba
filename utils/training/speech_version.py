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
from utils.evaluation.speech_figures import FACTS, calibrate, figures_of, scorecard, write_scores
from utils.metrics import auc
from utils.speech.spectrogram import BANDS, WINDOW_FRAMES, log_mel, prepare
from utils.training.speech import (
    Recording,
    SpeechPlan,
    all_views,
    fit,
    read_recordings,
    read_sound,
    score,
    with_copies,
)
from utils.types import Floats
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


def train_speech(
    data: Path, run: Path, root: Path, name: str, plan: SpeechPlan, *, terms: Sequence[str], notes: Sequence[str]
) -> tuple[Version, str]:
    """Train, calibrate and publish a version; a stopped run goes on where it was.

    Args:
        data: folder with manifests of recordings.
        run: where spectrograms and checkpoints are kept.
        root: the folder with the versions of speech.
        name: of the new version.
        plan: how long and how.
        terms: of the data, for the card.
        notes: what else the card shall say.

    Returns:
        The version, and its scorecard in Markdown.

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
    facts = audit(recordings, views)
    counts = Counter(f"{r.split} {r.kind} {'fake' if r.label else 'real'}" for r in recordings)
    card = {
        "network": dataclasses.asdict(SPEECH),
        "plan": dataclasses.asdict(plan),
        "data": {"recordings": dict(sorted(counts.items())), "terms": list(terms)},
        "notes": list(notes),
        "validation": figures_of(scores) | {"auc_of_single_facts": facts},
    }
    version = publish_speech(root, name, network, calibration, card, scale=scale, shift=shift)
    text = scorecard(scores, facts)
    (run / "scorecard.md").write_text(text, encoding="utf-8")
    return version, text


def audit(recordings: Sequence[Recording], views: Sequence[Sequence[Floats]]) -> dict[str, float]:
    """What tells the classes of the validation part apart without a network: single facts, and a linear probe.

    The probe is a logistic regression on mean and spread over time of each band, trained on the training part.

    Returns:
        AUC by fact, 0.5 to 1, whichever way round; and that of `linear spectral probe`.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows: dict[str, list[Floats]] = {"train": [], "val": []}
    labels: dict[str, list[float]] = {"train": [], "val": []}
    facts = []
    for recording, made in zip(recordings, views, strict=True):
        window = prepare(made[0][None].astype(np.float32))[0]
        rows[recording.split].append(np.r_[window.mean(0), window.std(0)])
        labels[recording.split].append(float(recording.label))
        if recording.split == "val":
            sound = read_sound(recording.path)
            loud = log_mel(sound)
            power = loud.max(1)
            facts.append([
                np.log(np.mean(sound**2) + 1e-12), np.abs(sound).max(), len(sound), (power < power.max() - 9).mean(),
                loud.mean(0) @ np.arange(BANDS), np.quantile(power, 0.05) - power.max(),
            ])  # fmt: skip
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=500, class_weight="balanced"))
    probe.fit(np.stack(rows["train"]), labels["train"])
    truth = np.array(labels["val"])
    measured = {name: auc(truth, column) for name, column in zip(FACTS, np.array(facts).T, strict=True)}
    measured = {name: max(value, 1 - value) for name, value in measured.items()}
    measured["linear spectral probe"] = auc(truth, probe.decision_function(np.stack(rows["val"])))
    return {name: round(float(value), 3) for name, value in measured.items()}
