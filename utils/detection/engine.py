"""Run the experts on crops and mix what they say: what an engine is, and all that its backends share.

`TorchEngine` (`torch_engine.py`) is the reference, `OpenVinoEngine` (`openvino_engine.py`) the fast one on a
processor; `engines.py` chooses. A backend only computes experts on one batch; the loop over batches and the gate are
here, once. The gate is that of `models/gating.py`, which explains the formula, in numpy: serving need not load torch. A
test holds the two together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from models.cards import EXPERT_NAMES, MIN_SEQUENCE
from utils.detection.moments import LEAST_PROBABILITY, Flags, differing_part
from utils.detection.remembered import Remembered
from utils.errors import WeightsCorruptError
from utils.metrics import logit
from utils.tensors import read_tensors
from utils.types import Floats, Pixels
from utils.weights import GATE_FILE, Version

if TYPE_CHECKING:
    from models.ensemble_model import Ensemble

BATCH = 16
"""Crops per forward pass; larger batches gain little on a CPU and cost memory."""
SEQUENCE = 16
"""Crops that the LSTM was trained to read as one sequence."""
LSTM_COLUMN = EXPERT_NAMES.index("lstm")


class Mixture(NamedTuple):
    """Answer of the gate, as `models.gating.GateOutput` explains it."""

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
        self.scale, self.shift = self._arrays["scale"], self._arrays["shift"]  # (E,), Platt scaling per expert

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
        calibrated = self.scale * logits + self.shift
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


@dataclass(frozen=True)
class Answers:
    """What the image experts say of N crops.

    Args:
        logits: (N, E) raw ones, NaN for experts that are missing, not asked or judge only sequences.
        features: (N, D) of ResNeXt-50, which the LSTM reads; None without it.
        tokens: (N, L, 2D) of the ViT, which its head reads and feedback is learned from; None without it.
    """

    logits: Floats
    features: Floats | None
    tokens: Floats | None

    def __getitem__(self, rows: slice | list[int]) -> Answers:
        features, tokens = (None if part is None else part[rows] for part in (self.features, self.tokens))
        return Answers(self.logits[rows], features, tokens)


@dataclass(frozen=True)
class TrackScores:
    """What the ensemble says of one person.

    Args:
        logit: calibrated logit of fake.
        weights: (E,) shares of the experts, in the order of `EXPERT_NAMES`.
        expert_logits: (E,) calibrated logits of the experts over the track, NaN where missing.
        frame_logits: (T,) calibrated logits frame by frame, image experts only.
        part: (T,) the frames that stand out, which all but `frame_logits` is then about; None for a track of one piece.
        recalled: logits by which remembered corrections moved `logit`.
        answers: of the experts, which feedback is learned from.
    """

    logit: float
    weights: Floats
    expert_logits: Floats
    frame_logits: Floats
    part: Flags | None = None
    recalled: float = 0.0
    answers: Answers | None = None


class Engine(ABC):
    """The experts and the gate of one version."""

    name: ClassVar[str]
    """`torch` or `openvino`, as in the setting."""

    def __init__(self, gate: NumericGate, *, batch: int = BATCH) -> None:
        self.gate = gate
        self.batch = batch

    @property
    @abstractmethod
    def precisions(self) -> Mapping[str, str]:
        """What each loaded expert computes with: fp32, fp16 or bf16."""

    @property
    @abstractmethod
    def networks(self) -> Ensemble:
        """The networks in torch, for what needs gradients; may have to be loaded, so hold on to them."""

    @abstractmethod
    def answer_batch(self, crops: Pixels, only: Collection[str] | None = None) -> Answers:
        """Run the image experts on one batch.

        Args:
            crops: (B, S, S, 3) uint8.
            only: names of those that are asked; None asks all.
        """

    @abstractmethod
    def sequence_logit(self, features: Floats) -> float:
        """The LSTM's raw logit of one track's (T, D) features; NaN without an LSTM."""

    def run(
        self,
        crops: Sequence[Pixels],
        on_batch: Callable[[float], None] | None = None,
        *,
        only: Collection[str] | None = None,
    ) -> Answers:
        """Ask the image experts about crops, batch by batch; equal crops are computed once.

        Args:
            crops: (S, S, 3) uint8 each, at least one.
            on_batch: told the share of the crops that are done, 0..1, after each batch; what it raises ends the work.
            only: names of the experts that are asked; None asks all.
        """
        unique, places = unique_crops(crops)
        parts = []
        for low in range(0, len(unique), self.batch):
            parts.append(self.answer_batch(np.stack(unique[low : low + self.batch]), only))
            if on_batch is not None:
                on_batch(min(1.0, (low + self.batch) / len(unique)))
        logits = np.concatenate([part.logits for part in parts])
        features = [part.features for part in parts if part.features is not None]
        tokens = [part.tokens for part in parts if part.tokens is not None]
        joined = (np.concatenate(kind) if kind else None for kind in (features, tokens))
        return Answers(logits, *joined)[places]

    def person_logits(self, answers: Answers) -> Floats:
        """Raw logits of all experts about one person, (E,): means over the crops, and the LSTM's over sequences."""
        whole: Floats = answers.logits.mean(0)  # NaN stays NaN
        features = answers.features
        long_enough = features is not None and len(features) >= MIN_SEQUENCE
        whole[LSTM_COLUMN] = self._over_sequences(features) if features is not None and long_enough else float("nan")
        return whole

    def _over_sequences(self, features: Floats) -> float:
        """The LSTM's mean over as few sequences of `SEQUENCE` as reach over all (T, D) features."""
        count = -(-len(features) // SEQUENCE)
        starts = np.linspace(0, max(0, len(features) - SEQUENCE), count).round().astype(int)
        return float(np.mean([self.sequence_logit(features[start : start + SEQUENCE]) for start in starts]))

    def mix(self, answers: Answers, quality: Floats, remembered: Remembered | None = None) -> TrackScores:
        """What the gate makes of the answers about one person.

        Args:
            answers: about the crops of the person, in time order.
            quality: (T, Q) measurements of the crops.
            remembered: corrections of the version, which move the logits of faces within their reach.
        """
        mixed, part = self.gate.mix(self.person_logits(answers)[None], quality.mean(0)[None]), None
        alone = bool(np.isnan(answers.logits).all(1).any())  # no image expert: nothing to say of single frames
        frames = mixed.logit if alone else self.gate.mix(answers.logits, quality).logit
        shift, recalled = np.zeros(len(quality), np.float32), 0.0
        if remembered is not None and answers.tokens is not None:
            shift = remembered.shift(answers.tokens)
            frames, recalled = frames + shift, float(shift.mean())
        whole = float(mixed.logit[0]) + recalled
        if not alone and (high := differing_part(frames)) is not None:
            rows = np.flatnonzero(high).tolist()
            there = self.gate.mix(self.person_logits(answers[rows])[None], quality[rows].mean(0)[None])
            moved = float(shift[rows].mean())
            if there.logit[0] + moved > max(whole, logit(LEAST_PROBABILITY)):
                mixed, part, whole, recalled = there, high, float(there.logit[0]) + moved, moved
        return TrackScores(
            logit=whole,
            weights=mixed.weights[0],
            expert_logits=mixed.calibrated[0],
            frame_logits=np.broadcast_to(frames, len(quality)).copy(),
            part=part,
            recalled=recalled,
            answers=answers,
        )


def unique_crops(crops: Sequence[Pixels]) -> tuple[list[Pixels], list[int]]:
    """The different ones among crops: a still picture as a video has the same face in every frame.

    Returns:
        Each different crop once, in order of appearance, and for every given crop its place among them.
    """
    known: dict[bytes, int] = {}
    first: list[Pixels] = []
    places = []
    for crop in crops:
        place = known.setdefault(crop.tobytes(), len(first))
        if place == len(first):
            first.append(crop)
        places.append(place)
    return first, places
