"""Figures of speech on scores that are known beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from utils.evaluation.speech_figures import Scores, calibrate, figures_of, outcomes, platt, read_scores, write_scores
from utils.metrics import sigmoid
from utils.types import Outcome


def scores(gap: float = 3.0, count: int = 120) -> Scores:
    """Half fakes of four families, half real ones of four worlds; the last two of each are strangers."""
    rng = np.random.default_rng(0)
    labels = (np.arange(count) % 2).astype(float)
    kinds = tuple(f"{'family' if i % 2 else 'world'} {i // 2 % 4}" for i in range(count))
    strangers = np.array([float(kind.endswith(("2", "3"))) for kind in kinds])
    plain = gap * (labels - 0.5) + rng.normal(size=count)
    columns = [plain, plain, plain, np.where(labels > 0.5, plain - gap, plain)]
    return Scores(labels, kinds, strangers, tuple(f"s{i}" for i in range(count)), np.stack(columns, 1))


def test_a_table_of_scores_comes_back(tmp_path):
    given = scores()
    write_scores(given, tmp_path / "scores.csv")
    back = read_scores(tmp_path / "scores.csv")
    assert np.allclose(back.logits, given.logits, atol=1e-4)
    assert (back.kinds, back.speakers) == (given.kinds, given.speakers)
    assert np.array_equal(back.labels, given.labels)
    assert np.array_equal(back.strangers, given.strangers)


def test_figures_tell_known_from_left_out_families_and_what_a_telephone_costs():
    figures = figures_of(scores())
    assert list(figures["eer_left_out_families"]) == ["family 2", "family 3"]
    assert 0 < float(str(figures["eer_known_families"]).split()[0]) < 0.2
    assert 0 < float(str(figures["min_dcf"]).split()[0]) < 0.5
    assert figures["auc_lost"]["opus16"] == 0
    assert figures["auc_lost"]["telephone"] > 0.3


def test_platt_makes_probabilities_of_logits():
    given = scores()
    given = Scores(given.labels, given.kinds, given.strangers, given.speakers, given.logits[:, :1] + 5)
    scale, shift = platt(given)
    middle = sigmoid(scale * 5 + shift)
    assert middle == pytest.approx(0.5, abs=0.1)


def test_the_band_keeps_strangers_from_being_called_fake():
    _, _, calibration = calibrate(scores(2.0))
    assert calibration.real_below <= 0.5 <= calibration.fake_above
    said = outcomes(scores(2.0))
    real = [o for o, label in zip(said, scores(2.0).labels, strict=True) if not label]
    assert np.mean([o is Outcome.FAKE for o in real]) <= 0.1
    assert {Outcome.REAL, Outcome.FAKE} <= set(said)
