"""Faces are found again near where they were, as a search of the whole frame finds them; in doubt it is searched."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from utils.faces.redetect import follow_faces
from utils.types import Box, Face, Pixels


def scene(photo: Pixels, *places: tuple[int, int], side: int = 400) -> Pixels:
    """A frame of 1280 x 720 with the photo, made `side` pixels large, at each place."""
    frame = np.full((720, 1280, 3), 90, np.uint8)
    small = cv2.resize(photo, (side, side), interpolation=cv2.INTER_AREA)
    for x, y in places:
        frame[y : y + side, x : x + side] = small
    return frame


class Watched:
    """A detector that remembers what sizes it was shown."""

    def __init__(self, detector) -> None:
        self.detector = detector
        self.sizes: list[tuple[int, int]] = []

    def detect(self, rgb: Pixels) -> tuple[Face, ...]:
        self.sizes.append((rgb.shape[1], rgb.shape[0]))
        return self.detector.detect(rgb)


class Fixed:
    """Always finds the same faces, wherever it looks."""

    def __init__(self, *boxes: tuple[float, float, float, float]) -> None:
        self.faces = tuple(Face(Box(*b), 0.9, np.zeros((5, 2), np.float32)) for b in boxes)

    def detect(self, rgb: Pixels) -> tuple[Face, ...]:
        return self.faces


def overlap(a: Box, b: Box) -> float:
    shared = max(min(a.x1, b.x1) - max(a.x0, b.x0), 0) * max(min(a.y1, b.y1) - max(a.y0, b.y0), 0)
    return shared / (a.width * a.height + b.width * b.height - shared)


@pytest.mark.parametrize("moved", [(0, 0), (22, -14), (-9, 25)])
def test_moved_face_is_found_as_in_the_whole_frame_and_on_a_part_of_it(face_detector, photo, moved):
    known = face_detector.detect(scene(photo, (500, 200)))
    frame = scene(photo, (500 + moved[0], 200 + moved[1]))
    watched = Watched(face_detector)
    (again,) = follow_faces(watched, frame, known)
    (whole,) = face_detector.detect(frame)
    assert overlap(again.box, whole.box) > 0.9
    assert np.abs(again.landmarks - whole.landmarks).max() < 0.05 * whole.box.height
    assert [w * h < 0.3 * 640 * 352 for w, h in watched.sizes] == [True]


def test_two_people_are_followed_each_and_the_largest_comes_first(face_detector, photo):
    known = face_detector.detect(scene(photo, (100, 200), (800, 250)))
    assert len(known) == 2
    again = follow_faces(face_detector, scene(photo, (110, 200), (790, 250)), known[::-1])
    assert {round(face.box.centre[0] / 100) for face in again} == {round(f.box.centre[0] / 100) for f in known}
    assert again[0].box.width * again[0].box.height >= again[1].box.width * again[1].box.height


@pytest.mark.parametrize("places", [(), ((100, 40),)])
def test_who_has_left_or_jumped_is_searched_for_in_the_whole_frame(face_detector, photo, places):
    known = face_detector.detect(scene(photo, (700, 300)))
    assert follow_faces(face_detector, scene(photo, *places), known) is None


def test_nobody_known_and_faces_too_large_for_a_part_give_up_at_once(face_detector, photo):
    watched = Watched(face_detector)
    assert follow_faces(watched, photo, ()) is None
    large = (Face(Box(300, 40, 800, 700), 0.9, np.zeros((5, 2), np.float32)),)
    assert follow_faces(watched, np.zeros((720, 1280, 3), np.uint8), large) is None
    assert watched.sizes == []


def test_doubtful_finds_are_not_taken():
    frame = np.zeros((720, 1280, 3), np.uint8)
    known = (Face(Box(600, 300, 700, 420), 0.9, np.zeros((5, 2), np.float32)),)
    assert follow_faces(Fixed((50, 50, 100, 110)), frame, known) is not None
    assert follow_faces(Fixed((0.5, 50, 50, 110)), frame, known) is None, "cut by the edge of the part"
    assert follow_faces(Fixed((50, 50, 100, 110), (60, 60, 110, 120)), frame, known) is None, "two of them"
    assert follow_faces(Fixed((50, 50, 62, 60)), frame, known) is None, "far too small to be the same"
    both = (*known, Face(Box(620, 310, 720, 430), 0.9, np.zeros((5, 2), np.float32)))
    assert follow_faces(Fixed((50, 50, 100, 110)), frame, both) is None, "both are the same one"
