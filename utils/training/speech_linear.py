"""The linear branch of the network of speech: what is drawn how often, its fit, and how it does on strangers."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.speech_model import SpeechNetwork
from utils.metrics import auc, bootstrap, eer

SPREAD_C = 0.003
"""Inverse strength of the pull towards 0 of the linear branch."""
COPY_WEIGHT = 0.3
"""Of families that are made of the recordings here, beside those that came as they are."""
PROCESSED_WEIGHT = 0.3
"""Of a view after a random chain, beside the recording as it is."""
FOLDS = 5


@dataclass(frozen=True)
class Recording:
    """One row of a manifest; `maker` names the fake that is made of the file, empty for the file as it is."""

    path: Path
    label: int
    split: str
    source: str
    system: str
    family: str
    world: str
    speaker: str
    maker: str = ""

    @property
    def kind(self) -> str:
        """What it is drawn by: the family of a fake, the world of a real one."""
        return self.family if self.label else self.world or self.source


@dataclass(frozen=True)
class Windows:
    """A window of each view that is trained on, as the encoder gives it.

    Args:
        frames: (N, T, D) float16.
        spreads: (N, E) float16.
        owners: (N,) numbers of the recordings, the views of one side by side.
        truth: (N,) 1 fake, 0 real.
    """

    frames: Tensor
    spreads: Tensor
    owners: npt.NDArray[np.int64]
    truth: Tensor

    def part(self, chosen: npt.NDArray[np.bool_]) -> Windows:
        """Some of them."""
        kept = torch.from_numpy(chosen)
        return Windows(self.frames[kept], self.spreads[kept], self.owners[chosen], self.truth[kept])


def chances_of(recordings: Sequence[Recording], owners: npt.NDArray[np.int64], label: int) -> npt.NDArray[np.float64]:
    """How likely each window is drawn among those of its class, 0 for the other: families of fakes and worlds of real
    recordings by the root of their size, recordings evenly within, their first views before the others.
    """
    kinds = np.array([recordings[i].kind if recordings[i].label == label else "" for i in owners])
    names, place, count = np.unique(kinds, return_inverse=True, return_counts=True)
    made = np.array([COPY_WEIGHT if recordings[i].maker else 1.0 for i in owners])
    later = np.where(np.diff(owners, prepend=-1) == 0, PROCESSED_WEIGHT, 1.0)
    chance = made * later * (names != "")[place] / np.sqrt(count[place])
    return np.asarray(chance / chance.sum())


def fit_spread(network: SpeechNetwork, windows: Windows, chances: Sequence[npt.NDArray[np.float64]]) -> None:
    """Fit the linear branch: logistic regression on what is normal of means and deviations, windows by their chance."""
    from sklearn.linear_model import LogisticRegression

    weight = sum(chances) * len(windows.truth) / 2
    rows = windows.spreads.double().numpy()
    mean = np.average(rows, axis=0, weights=weight)
    scale = np.sqrt(np.average((rows - mean) ** 2, axis=0, weights=weight)) + 1e-3
    network.spread_mean, network.spread_scale = (torch.from_numpy(x).float() for x in (mean, scale))
    model = LogisticRegression(C=SPREAD_C, max_iter=300)
    model.fit(network.normal(windows.spreads.float()).numpy(), windows.truth.numpy(), sample_weight=weight)
    with torch.no_grad():
        network.spread_head.weight.copy_(torch.from_numpy(model.coef_))
        network.spread_head.bias.copy_(torch.from_numpy(model.intercept_))


def folds_of(recordings: Sequence[Recording]) -> list[int]:
    """A fold for each recording that is trained on as it came, whole families and worlds, evenly filled; else -1."""
    fold: dict[tuple[int, str], int] = {}
    trained = [r for r in recordings if r.split == "train" and not r.maker]
    for label in (0, 1):
        filled = [0] * FOLDS
        kinds = [r.kind for r in trained if r.label == label]
        for kind in sorted(set(kinds), key=lambda kind: (-kinds.count(kind), kind)):
            fold[label, kind] = least = filled.index(min(filled))
            filled[least] += kinds.count(kind)
    return [fold[r.label, r.kind] if r.split == "train" and not r.maker else -1 for r in recordings]


def left_out(network: SpeechNetwork, recordings: Sequence[Recording], windows: Windows) -> dict[str, str]:
    """Figures of the linear branch on families and worlds of the training part that it has not seen, each once.

    With them go all recordings and copies of their speakers. Nothing of the validation part is looked at.
    """
    trial, folds = copy.deepcopy(network), np.array(folds_of(recordings))
    windows = dataclasses.replace(windows, frames=windows.frames[:, :0])
    first = np.diff(windows.owners, prepend=-1) != 0
    found: dict[int, float] = {}
    for number in range(FOLDS):
        held = (folds == number)[windows.owners]
        speakers = {recordings[i].speaker or recordings[i].path.name for i in windows.owners[held]}
        free = [(r.speaker or r.path.name) not in speakers for r in recordings]
        part = windows.part(~held & np.array(free)[windows.owners])
        if len(set(part.truth.tolist())) < 2 or not held.any():
            continue
        fit_spread(trial, part, [chances_of(recordings, part.owners, label) for label in (0, 1)])
        asked = windows.part(held & first)
        with torch.no_grad():
            said = trial.spread_head(trial.normal(asked.spreads.float())).squeeze(1).tolist()
        found.update(zip(asked.owners.tolist(), said, strict=True))
    labels = np.array([float(recordings[i].label) for i in found])
    if len(set(labels)) < 2:
        return {}
    names = [recordings[i].speaker or recordings[i].path.name for i in found]
    scores = np.array(list(found.values()))
    return {
        statistic.__name__: str(bootstrap(statistic, labels, scores, names, rounds=500)) for statistic in (auc, eer)
    } | {"recordings": str(len(found))}
