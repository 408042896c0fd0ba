"""Augmentation follows from its generator alone, keeps shape and type, sees no label; H.264 acts as in a video."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from utils.faces.crops import reframe
from utils.training import augment as room
from utils.training.augment import MAX_CRF, MIN_CRF, PRESETS, augment, degrade, draw_h264, h264, jpeg
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


@pytest.fixture(scope="module")
def face(make_pack):
    return np.ascontiguousarray(make_pack(pictures=1).pixels[0])


def loss(face, crf: int) -> float:
    return float(np.abs(h264([face], crf)[0].astype(int) - face).mean())


def test_a_higher_rate_factor_loses_more(face):
    assert 0 < loss(face, 18) < loss(face, 30) < loss(face, 44)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_clip_keeps_its_frames_and_order(face, preset):
    shifted = [np.roll(face, 3 * k, axis=1) for k in range(6)]
    coded = h264(shifted, 23, preset)
    assert [c.shape for c in coded] == [face.shape] * 6
    for k, frame in enumerate(coded):
        errors = [np.abs(frame.astype(int) - other).mean() for other in shifted]
        assert int(np.argmin(errors)) == k


def test_later_frames_are_predicted_from_earlier_ones(face):
    noisy = np.clip(face + np.random.default_rng(0).normal(0, 9, face.shape), 0, 255).astype(np.uint8)
    alone, after = h264([face], 34)[0], h264([noisy, face], 34)[1]
    assert not np.array_equal(alone, after)


def test_same_bytes_on_every_call(face):
    assert np.array_equal(h264([face] * 3, 28)[2], h264([face] * 3, 28)[2])


def test_nothing_gives_nothing_and_odd_sides_are_refused(face):
    assert h264([], 20) == []
    with pytest.raises(ValueError, match="even"):
        h264([face[:-1]], 20)
    with pytest.raises(ValueError, match="even"):
        h264([face, face[:128, :128]], 20)
    with pytest.raises(ValueError, match="crf"):
        h264([face], 52)


def test_drawn_quality_is_within_its_range():
    drawn = [draw_h264(np.random.default_rng(seed)) for seed in range(200)]
    factors = [crf for crf, _ in drawn]
    assert min(factors) >= MIN_CRF
    assert max(factors) <= MAX_CRF
    assert max(factors) - min(factors) > 15
    assert {preset for _, preset in drawn} == set(PRESETS)
