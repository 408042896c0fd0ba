"""Augmentation follows from its generator alone, keeps shape and type, sees no label; H.264 acts as in a video."""

from __future__ import annotations

import inspect
from operator import attrgetter

import numpy as np
import pytest

from utils.faces.crops import QUALITY_NAMES, jpeg, reframe
from utils.training import augment as room
from utils.training.augment import (
    FILTERS,
    MAX_CRF,
    MIN_CRF,
    PRESETS,
    augment,
    covered,
    degrade,
    draw_h264,
    h264,
    processed,
    smoothed,
    turned,
)
from utils.training.planning import plan_clip
from utils.training.views import Renderer, View, render, render_clip, view_quality
from utils.types import Box, MediaKind


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


def test_drawn_quality_is_within_its_range():
    drawn = [draw_h264(np.random.default_rng(seed)) for seed in range(200)]
    factors = [crf for crf, _ in drawn]
    assert min(factors) >= MIN_CRF
    assert max(factors) <= MAX_CRF
    assert max(factors) - min(factors) > 15
    assert {preset for _, preset in drawn} == set(PRESETS)


# A view is made again from its seed, the same to the last bit; frames of a clip are coded together.


def test_steady_blend_is_the_same_in_each_frame_and_unsteady_is_not(make_pack):
    pack = make_pack(pictures=0, clips=1, frames=3)
    frames = pack.select("train", MediaKind.VIDEO)
    steady = [render(pack, v) for v in plan_clip(frames, seed=3, clean=True, blended=True, unsteady=False)]
    unsteady = [render(pack, v) for v in plan_clip(frames, seed=3, clean=True, blended=True, unsteady=True)]
    assert np.array_equal(steady[0], steady[1])
    assert np.array_equal(steady[1], steady[2])
    assert not np.array_equal(unsteady[0], unsteady[1])


@pytest.mark.parametrize("view", [View(0, 0, "s", "-", 5), View(0, 1, "s", "self-blend", 5, blended=True)])
def test_view_can_be_made_again(make_pack, view):
    pack = make_pack(pictures=1)
    one = render(pack, view)
    assert one.shape == (224, 224, 3)
    assert one.dtype == np.uint8
    assert np.array_equal(one, render(pack, view))


def test_clean_view_ignores_the_seed_and_measures_like_the_gate(make_pack):
    pack = make_pack(pictures=1)
    one, two = (render(pack, View(0, 0, "s", "-", seed, clean=True)) for seed in (1, 2))
    assert np.array_equal(one, two)
    quality = view_quality(pack, View(0, 0, "s", "-", 1, clean=True), one)
    assert quality.shape == (len(QUALITY_NAMES),)
    assert quality[0] == pytest.approx(np.log2(100.0))


def test_a_clean_view_is_not_coded_again():
    with pytest.raises(ValueError, match="clean"):
        View(0, 0, "s", "-", 1, clean=True, h264=True)


def test_coded_view_has_lost_detail_and_can_be_made_again(make_pack):
    pack = make_pack(pictures=1)
    seed = next(s for s in range(99) if draw_h264(np.random.default_rng([s, 264]))[0] > 34)
    view = View(0, 0, "s", "-", seed, h264=True)
    coded = render(pack, view)
    assert np.array_equal(coded, render(pack, view))
    assert np.array_equal(coded, Renderer(pack, [view])[0])
    plain = render(pack, View(0, 0, "s", "-", seed))
    assert not np.array_equal(coded, plain)


def test_frames_of_a_clip_are_coded_together_wherever_one_begins(make_pack):
    pack = make_pack(pictures=0, clips=2, frames=5)
    clips = [clip for _, clip in sorted(pack.videos("train").items())]
    views = [v for k, clip in enumerate(clips) for v in plan_clip(clip, seed=40 + k, clean=False, blended=False,
             unsteady=False, h264=True)]  # fmt: skip
    whole = [frame for k in range(2) for frame in render_clip(pack, views[5 * k : 5 * k + 5])]
    renderer = Renderer(pack, views)
    assert all(np.array_equal(renderer[i], whole[i]) for i in range(10))
    assert np.array_equal(Renderer(pack, views)[7], whole[7]), "a stopped extraction may begin within a clip"
    assert not np.array_equal(render(pack, views[7]), whole[7]), "alone it would be a key frame"


# What an ordinary photo goes through: every filter keeps size and kind, turns move the face box with the face.

MARKS = np.array([[90, 110], [165, 110], [128, 150], [98, 185], [158, 185]], np.float32)
BOX = Box(60, 60, 200, 230)


@pytest.fixture
def plain():
    rng = np.random.default_rng(0)
    smooth = np.linspace(40, 200, 256)[None, :, None] + np.linspace(-30, 30, 256)[:, None, None] + np.zeros(3)
    return np.clip(smooth + rng.normal(0, 8, (256, 256, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("filter_", sorted(set(FILTERS), key=attrgetter("__name__")), ids=attrgetter("__name__"))
def test_every_filter_changes_the_picture_a_little_and_not_its_form(filter_, plain):
    out = filter_(plain, np.random.default_rng(1))
    assert out.dtype == np.uint8
    assert out.shape == plain.shape
    assert 0 < np.abs(out.astype(int) - plain).mean() < 60


def test_a_turned_face_lies_where_its_box_says():
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[20:40, 10:60] = 255
    for quarters in (1, 2, 3):
        out, box = turned(pixels, Box(10, 20, 60, 40), quarters)
        inside = out[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)]
        assert inside.min() == 255
        assert out.sum() == inside.astype(int).sum()


def test_a_cover_hides_eyes_or_mouth_and_leaves_the_corners(plain):
    for seed in range(12):
        out = covered(plain, MARKS, np.random.default_rng(seed))
        changed = np.abs(out.astype(int) - plain).max(2)
        assert changed[:20].max() == 0
        assert changed[100:190, 80:180].max() > 20


def test_the_same_draw_gives_the_same_picture_and_a_box_inside_it(plain):
    for seed in range(20):
        first, box = processed(plain, BOX, MARKS, 90.0, np.random.default_rng(seed))
        again, _ = processed(plain, BOX, MARKS, 90.0, np.random.default_rng(seed))
        assert (first == again).all()
        assert first.shape == plain.shape
        assert 0 <= min(box.x0, box.y0) < max(box.x1, box.y1) <= 256


def test_noise_reduction_alone_takes_noise_away_keeps_the_face_where_it_is_and_can_be_made_again(plain):
    def detail(pixels):
        return np.abs(np.diff(pixels.astype(int), axis=1)).mean()

    quieter = 0
    for seed in range(12):
        first, again = (smoothed(plain, BOX, 170.0, np.random.default_rng(seed)) for _ in range(2))
        assert (first == again).all()
        assert first.shape == plain.shape
        assert np.abs(first.astype(int) - plain).mean() < 30
        quieter += detail(first) < detail(plain)
    assert quieter >= 9, "sharpening on top may bring some of it back"
