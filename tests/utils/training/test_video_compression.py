"""H.264 in memory changes pixels as a video does, the same on every call, and alike for every frame of a clip."""

from __future__ import annotations

import numpy as np
import pytest

from utils.training.augment import MAX_CRF, MIN_CRF, PRESETS, draw_h264, h264


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
