"""Augmentation is the same for the same generator, keeps shape and type, and is never told the label."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from utils.faces.crops import reframe
from utils.training import augment as room
from utils.training.augment import augment, degrade, jpeg
from utils.types import Box


@pytest.fixture(scope="module")
def crop(make_pack):
    pack = make_pack(pictures=1)
    return pack.pixels[0], pack.rows[0].face_box()


@pytest.mark.parametrize("seed", range(12))
def test_answer_has_the_asked_size_and_only_depends_on_the_generator(crop, seed):
    one = augment(*crop, np.random.default_rng(seed), size=96)
    assert one.shape == (96, 96, 3)
    assert one.dtype == np.uint8
    assert np.array_equal(one, augment(*crop, np.random.default_rng(seed), size=96))


def test_generators_differ(crop):
    views = [augment(*crop, np.random.default_rng(seed)).tobytes() for seed in range(20)]
    assert len(set(views)) == 20


def test_input_is_left_alone(crop):
    before = crop[0].copy()
    for seed in range(10):
        augment(*crop, np.random.default_rng(seed))
    assert np.array_equal(before, crop[0])


def test_no_function_is_told_a_label():
    for function in (augment, degrade, reframe, jpeg):
        assert not {"label", "fake", "view", "labels"} & set(inspect.signature(function).parameters)


def test_jpeg_quality_lies_between_40_and_100_and_happens_in_60_of_100(crop, monkeypatch):
    seen = []
    monkeypatch.setattr(room, "jpeg", lambda pixels, quality: seen.append(quality) or pixels)
    small = np.ascontiguousarray(crop[0][::8, ::8])
    for seed in range(600):
        degrade(small, np.random.default_rng(seed))
    assert 40 <= min(seen) <= 45
    assert 95 <= max(seen) <= 100
    assert 310 < len(seen) < 410


def test_lower_jpeg_quality_loses_more(crop):
    errors = [np.abs(jpeg(crop[0], q).astype(int) - crop[0]).mean() for q in (40, 70, 100)]
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize(
    ("box", "scale", "side"),
    [
        (Box(100, 100, 150, 140), 1.0, 50),
        (Box(100, 100, 150, 140), 1.3, 65),
        (Box(-20, -20, 300, 300), 1.3, 256),
        (Box(0, 0, 4, 4), 1.0, 16),
        (Box(230, 230, 256, 256), 1.3, 34),
    ],
)
def test_reframe_gives_a_square_inside_the_crop(box, scale, side):
    numbered = np.arange(256 * 256 * 3, dtype=np.uint32).reshape(256, 256, 3)
    cut = reframe(numbered, box, scale)
    assert cut.shape == (side, side, 3)
