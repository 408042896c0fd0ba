"""The torch engine: every person's score is their own, whoever else is in the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models import EXPERT_NAMES
from models.ensemble_model import build_ensemble
from utils.detection.engine import BATCH, TorchEngine, TrackScores
from utils.errors import ConfigError
from utils.faces.crops import QUALITY_NAMES
from utils.types import Floats, Pixels

Q = len(QUALITY_NAMES)
LSTM = EXPERT_NAMES.index("lstm")


def engine(names: tuple[str, ...] = EXPERT_NAMES) -> TorchEngine:
    torch.manual_seed(3)
    ensemble = build_ensemble(names, quality=Q, tiny=True)
    torch.nn.init.normal_(ensemble.gate.mix.weight)
    return TorchEngine(ensemble, device="cpu", threads=1)


def person(seed: int, frames: int) -> tuple[list[Pixels], Floats]:
    rng = np.random.default_rng(seed)
    return list(rng.integers(0, 256, (frames, 40, 40, 3), dtype=np.uint8)), rng.random((frames, Q), dtype=np.float32)


def score(chosen: TorchEngine, *people: tuple[list[Pixels], Floats]) -> list[TrackScores]:
    return chosen.score([crops for crops, _ in people], [quality for _, quality in people])


def assert_same(a: TrackScores, b: TrackScores) -> None:
    assert a.logit == pytest.approx(b.logit, abs=1e-4)
    for name in ("weights", "expert_logits", "frame_logits"):
        assert np.allclose(getattr(a, name), getattr(b, name), atol=1e-4, equal_nan=True), name


@pytest.mark.parametrize("frames", [1, 3, 4, 16])
def test_shapes_and_no_nan_where_there_is_an_expert(frames):
    (scores,) = score(engine(), person(0, frames))
    assert scores.frame_logits.shape == (frames,)
    assert np.isfinite(scores.frame_logits).all()
    assert np.isfinite(scores.logit)
    assert scores.weights.sum() == pytest.approx(1, abs=1e-6)
    judged = np.isfinite(scores.expert_logits)
    assert judged.tolist() == [True, True, True, frames >= 4]
    assert (scores.weights[~judged] == 0).all()


def test_score_does_not_depend_on_who_else_is_in_the_batch():
    people = [person(1, 1), person(2, 16), person(3, 5), person(4, 1), person(5, 2 * BATCH + 3)]
    chosen = engine()
    together = score(chosen, *people)
    for alone, shared in zip(people, together, strict=True):
        assert_same(score(chosen, alone)[0], shared)
    for before, after in zip(together, reversed(score(chosen, *reversed(people))), strict=True):
        assert_same(before, after)


def test_frame_scores_are_those_of_the_frames_alone():
    chosen, (crops, quality) = engine(), person(6, 6)
    (track,) = score(chosen, (crops, quality))
    alone = [score(chosen, ([crop], quality[i : i + 1]))[0].logit for i, crop in enumerate(crops)]
    assert np.allclose(track.frame_logits, alone, atol=1e-4)


def test_order_in_time_matters_to_the_lstm_alone():
    chosen, (crops, quality) = engine(), person(7, 8)
    forward, backward = (score(chosen, (crops[::step], quality[::step].copy()))[0] for step in (1, -1))
    assert forward.expert_logits[LSTM] != pytest.approx(backward.expert_logits[LSTM], abs=1e-6)
    assert np.allclose(forward.expert_logits[:LSTM], backward.expert_logits[:LSTM], atol=1e-4)


@pytest.mark.parametrize("names", [("cnn",), ("vit", "cnn"), ("resnext", "lstm")])
def test_missing_experts_have_no_logit_and_no_weight(names):
    (scores,) = score(engine(names), person(8, 5))
    there = np.array([name in names for name in EXPERT_NAMES])
    assert np.isfinite(scores.expert_logits).tolist() == there.tolist()
    assert (scores.weights[~there] == 0).all()
    assert scores.weights.sum() == pytest.approx(1, abs=1e-6)


def test_training_layers_are_switched_off():
    chosen = engine()
    assert_same(*(score(chosen, person(9, 4))[0] for _ in range(2)))


def test_missing_gpu_is_said_and_auto_does_without(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ensemble = build_ensemble(quality=Q, tiny=True)
    with pytest.raises(ConfigError, match="no GPU"):
        TorchEngine(ensemble, device="cuda", threads=1)
    assert TorchEngine(ensemble, device="auto", threads=1).device == "cpu"
