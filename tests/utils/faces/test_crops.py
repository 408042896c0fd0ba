"""The square around a face: always inside the frame, never padded, and everything in it keeps its place."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.faces.crops import CROP_PX, CROP_SCALE, QUALITY_NAMES, crop_face, crop_square, measure_quality, resize
from utils.types import Box, Face

coordinate = st.floats(-3000, 3000, allow_nan=False)
length = st.floats(0.5, 4000, allow_nan=False)
side = st.integers(1, 2500)
boxes = st.builds(lambda x, y, w, h: Box(x, y, x + w, y + h), coordinate, coordinate, length, length)


@given(boxes, side, side, st.floats(1.0, 1.3))
def test_square_is_whole_pixels_inside_the_frame(box, width, height, scale):
    square = crop_square(box, width, height, scale)
    corners = (square.x0, square.y0, square.x1, square.y1)
    assert all(value == int(value) for value in corners)
    assert square.width == square.height >= 1
    assert 0 <= square.x0 < square.x1 <= width
    assert 0 <= square.y0 < square.y1 <= height


@given(boxes, side, side)
def test_square_is_at_most_one_and_a_third_boxes_wide(box, width, height):
    square = crop_square(box, width, height)
    assert square.width <= max(8, CROP_SCALE * max(box.width, box.height) + 0.5)


@given(boxes, side, side)
def test_square_contains_the_centre_of_a_box_that_lies_in_the_frame(box, width, height):
    cx, cy = box.centre
    square = crop_square(box, width, height)
    if 0 <= cx <= width:
        assert square.x0 - 0.5 <= cx <= square.x1 + 0.5
    if 0 <= cy <= height:
        assert square.y0 - 0.5 <= cy <= square.y1 + 0.5


@given(
    st.floats(200, 300), st.floats(200, 300), st.floats(20, 100), st.floats(20, 100)
)  # far from every border of 500 x 500
def test_square_away_from_the_borders_is_centred_and_full_size(x, y, w, h):
    box = Box(x, y, x + w, y + h)
    square = crop_square(box, 500, 500)
    assert square.width == round(CROP_SCALE * max(box.width, box.height))
    assert np.abs(np.array(square.centre) - box.centre).max() <= 1
    assert square.x0 <= box.x0
    assert square.y1 >= box.y1


def test_tight_crop_is_used_whole():
    assert crop_square(Box(3, 2, 97, 99), 100, 100) == Box(0, 0, 100, 100)


def dotted_frame() -> tuple[np.ndarray, Face]:
    """A frame of 300 x 200 with one bright dot per landmark."""
    frame = np.zeros((200, 300, 3), np.uint8)
    marks = np.array([[140, 80], [170, 82], [155, 95], [145, 110], [166, 111]], np.float32)
    for i, (x, y) in enumerate(marks.astype(int)):
        frame[y, x] = 100 + 30 * i
    return frame, Face(Box(130, 60, 180, 125), 0.9, marks)


@pytest.mark.parametrize(("size", "scale"), [(CROP_PX, 1.3), (64, 1.0), (300, 1.15)])
def test_landmarks_and_box_map_back_to_the_frame(size, scale):
    frame, face = dotted_frame()
    crop = crop_face(frame, face, size=size, scale=scale)
    square = crop_square(face.box, 300, 200, scale)
    back = crop.landmarks * (square.width / size) + [square.x0, square.y0]
    assert np.abs(back - face.landmarks).max() < 1e-3
    assert crop.box.x0 * square.width / size + square.x0 == pytest.approx(130)
    assert crop.box.y1 * square.width / size + square.y0 == pytest.approx(125)
    assert crop.pixels.shape == (size, size, 3)
    assert crop.pixels.dtype == np.uint8
    assert (crop.source_px, crop.detector_score) == (65, 0.9)


def test_pixels_under_the_landmarks_are_those_of_the_frame():
    frame, face = dotted_frame()
    square = crop_square(face.box, 300, 200)
    crop = crop_face(frame, face, size=int(square.width))
    for i, (x, y) in enumerate(crop.landmarks.round().astype(int)):
        assert crop.pixels[y, x].tolist() == [100 + 30 * i] * 3


@pytest.mark.parametrize("shape", [(1, 1), (5, 400), (400, 5), (3000, 20)])
def test_frames_smaller_than_the_square_are_cut_as_they_are(shape):
    frame = np.full((*shape, 3), 77, np.uint8)
    crop = crop_face(frame, Face(Box(-50, -50, 90, 90), 0.7, np.zeros((5, 2), np.float32)))
    assert crop.pixels.shape == (CROP_PX, CROP_PX, 3)
    assert np.unique(crop.pixels).tolist() == [77]


def test_resize_keeps_right_sizes_and_averages_when_shrinking():
    checkers = np.indices((64, 64)).sum(0) % 2 * 200
    picture = np.repeat(checkers[:, :, None], 3, axis=2).astype(np.uint8)
    assert np.array_equal(resize(picture, 64), picture)
    assert np.unique(resize(picture, 32)).tolist() == [100]
    assert resize(picture, 128).shape == (128, 128, 3)


def test_quality_follows_what_it_measures():
    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    flat = np.full((64, 64, 3), 128, np.uint8)
    of_sharp, of_flat = measure_quality(sharp, 128.0, 0.75), measure_quality(flat, 0.0, 0.5)
    named = dict(zip(QUALITY_NAMES, of_sharp.tolist(), strict=True))
    assert named["face_px_log2"] == 7.0
    assert named["detector_score"] == 0.75
    assert named["sharpness_log"] > 8
    assert named["contrast"] > 0.1
    assert of_flat.tolist() == [0.0, 0.0, 0.0, 0.5]
    assert of_sharp.dtype == np.float32
    assert all(math.isfinite(v) for v in of_flat)
