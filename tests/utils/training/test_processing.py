"""What an ordinary photo goes through: every filter keeps size and kind, turns move the face box with the face."""

from __future__ import annotations

from operator import attrgetter

import numpy as np
import pytest

from utils.training.processing import FILTERS, covered, processed, smoothed, turned
from utils.types import Box

MARKS = np.array([[90, 110], [165, 110], [128, 150], [98, 185], [158, 185]], np.float32)
BOX = Box(60, 60, 200, 230)


@pytest.fixture
def crop():
    rng = np.random.default_rng(0)
    smooth = np.linspace(40, 200, 256)[None, :, None] + np.linspace(-30, 30, 256)[:, None, None] + np.zeros(3)
    return np.clip(smooth + rng.normal(0, 8, (256, 256, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("filter_", sorted(set(FILTERS), key=attrgetter("__name__")), ids=attrgetter("__name__"))
def test_every_filter_changes_the_picture_a_little_and_not_its_form(filter_, crop):
    out = filter_(crop, np.random.default_rng(1))
    assert out.dtype == np.uint8
    assert out.shape == crop.shape
    assert 0 < np.abs(out.astype(int) - crop).mean() < 60


def test_a_turned_face_lies_where_its_box_says():
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[20:40, 10:60] = 255
    for quarters in (1, 2, 3):
        out, box = turned(pixels, Box(10, 20, 60, 40), quarters)
        inside = out[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)]
        assert inside.min() == 255
        assert out.sum() == inside.astype(int).sum()


def test_a_cover_hides_eyes_or_mouth_and_leaves_the_corners(crop):
    for seed in range(12):
        out = covered(crop, MARKS, np.random.default_rng(seed))
        changed = np.abs(out.astype(int) - crop).max(2)
        assert changed[:20].max() == 0
        assert changed[100:190, 80:180].max() > 20


def test_the_same_draw_gives_the_same_picture_and_a_box_inside_it(crop):
    for seed in range(20):
        first, box = processed(crop, BOX, MARKS, 90.0, np.random.default_rng(seed))
        again, _ = processed(crop, BOX, MARKS, 90.0, np.random.default_rng(seed))
        assert (first == again).all()
        assert first.shape == crop.shape
        assert 0 <= min(box.x0, box.y0) < max(box.x1, box.y1) <= 256


def test_noise_reduction_alone_takes_noise_away_keeps_the_face_where_it_is_and_can_be_made_again(crop):
    def detail(pixels):
        return np.abs(np.diff(pixels.astype(int), axis=1)).mean()

    quieter = 0
    for seed in range(12):
        first, again = (smoothed(crop, BOX, 170.0, np.random.default_rng(seed)) for _ in range(2))
        assert (first == again).all()
        assert first.shape == crop.shape
        assert np.abs(first.astype(int) - crop).mean() < 30
        quieter += detail(first) < detail(crop)
    assert quieter >= 9, "sharpening on top may bring some of it back"
