"""What is drawn is right, whatever classes a set has; the same scores give the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from utils.evaluation.plots import draw_all, reliability_points


def drawn(seed: int = 0, count: int = 400):
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < 0.5).astype(np.float64)
    return labels, np.round(np.clip(0.5 + (labels - 0.5) * 0.4 + rng.normal(0, 0.2, count), 0, 1), 2)


def test_reliability_of_honest_probabilities_lies_on_the_diagonal():
    rng = np.random.default_rng(1)
    probabilities = rng.random(20_000)
    labels = (rng.random(20_000) < probabilities).astype(np.float64)
    points = reliability_points(labels, probabilities)
    assert len(points) == 10
    for stated, share, low, high in points:
        assert low <= share <= high
        assert share == pytest.approx(stated, abs=0.04)


def test_all_pictures_are_drawn_for_sets_of_any_classes(tmp_path):
    labels, probabilities = drawn()
    reals = labels == 0
    sets = {"both": (labels, probabilities), "real alone": (labels[reals], probabilities[reals])}
    first = draw_all(sets, tmp_path / "images")
    assert [p.name for p in first.values()] == ["roc.png", "reliability.png", "probabilities.png"]
    again = draw_all(sets, tmp_path / "again")
    for title, path in first.items():
        assert path.read_bytes() == again[title].read_bytes()
        with Image.open(path) as picture:
            assert min(picture.size) > 200
            assert len(picture.convert("RGB").getcolors(10**6)) > 10
    only = draw_all({"real alone": sets["real alone"]}, tmp_path / "only")
    assert all(path.is_file() for path in only.values())
