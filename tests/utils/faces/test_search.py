"""Faces are searched for frame by frame, and near where they were as in the whole frame; in doubt that is searched."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from utils.faces.search import FaceSearch, redetect_near
from utils.types import Box, Face, Frame, Pixels


class OneFace:
    """Finds one face at a place that the brightness tells, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def detect(self, rgb: Pixels) -> tuple[Face, ...]:
        self.asked += 1
        x = float(rgb.mean())
        return (Face(Box(x, 0, x + 20, 20), 0.9, np.zeros((5, 2), np.float32)),)


def frame(index: int, value: int) -> Frame:
    return Frame(index, float(index), np.full((30, 40, 3), value, np.uint8))


def searched(*frames: Frame) -> tuple[FaceSearch, OneFace, list[float]]:
    detector, told = OneFace(), []
    search = FaceSearch(detector, 4, lambda stage, done: told.append(done))
    for one in frames:
        search.add(one)
    return search, detector, told


def test_equal_frames_are_searched_once():
    search, detector, _ = searched(frame(0, 1), frame(1, 1), frame(2, 3), frame(3, 1))
    assert detector.asked == 3
    (track,) = search.tracks()
    assert [round(s.face.box.x0) for s in track.sightings] == [1, 1, 3, 1]


def test_a_new_beginning_forgets_what_was_seen():
    search, detector, told = searched(frame(0, 1), frame(1, 2), frame(0, 2), frame(1, 4))
    assert detector.asked == 4, "the first frame of a new beginning equals none before it"
    (track,) = search.tracks()
    assert [(s.frame, round(s.face.box.x0)) for s in track.sightings] == [(0, 2), (1, 4)]
    assert told == sorted(told)
    assert max(told) <= 0.5


class Sizes:
    """Finds one face of a fixed place in whole frames, and the same place in parts of them."""

    def __init__(self) -> None:
        self.whole: list[bool] = []

    def detect(self, rgb: Pixels) -> tuple[Face, ...]:
        whole = rgb.shape[:2] == (360, 640)
        self.whole.append(whole)
        x, y = (300.0, 150.0) if whole else (55.0, 55.0)
        return (Face(Box(x, y, x + 50, y + 60), 0.9, np.zeros((5, 2), np.float32)),)


def clip(count: int) -> list[Frame]:
    return [Frame(index, float(index), np.full((360, 640, 3), index, np.uint8)) for index in range(count)]


@pytest.mark.parametrize(("expected", "every"), [(16, 4), (9, 2), (5, 1)])
def test_between_whole_frames_faces_are_looked_for_where_they_were(expected, every):
    detector = Sizes()
    search = FaceSearch(detector, expected, lambda stage, done: None)
    for frame_ in clip(9):
        search.add(frame_)
    assert detector.whole == [index % every == 0 for index in range(9)]
    (track,) = search.tracks()
    assert [s.frame for s in track.sightings] == list(range(9))


class Newcomer(Sizes):
    """Beside the first, somebody in whole frames from frame 2 on."""

    def detect(self, rgb: Pixels) -> tuple[Face, ...]:
        faces = super().detect(rgb)
        if self.whole[-1] and rgb[0, 0, 0] >= 2:
            return (*faces, Face(Box(500.0, 150.0, 550.0, 210.0), 0.9, np.zeros((5, 2), np.float32)))
        return faces


def test_newcomers_are_searched_for_in_the_frames_before():
    detector = Newcomer()
    search = FaceSearch(detector, 16, lambda stage, done: None)
    for frame_ in clip(8):
        search.add(frame_)
    first, second = search.tracks()
    assert [s.frame for s in first.sightings] == list(range(8))
    assert [s.frame for s in second.sightings][:3] == [2, 3, 4]


def test_a_face_that_is_lost_is_searched_for_in_the_whole_frame():
    detector = Sizes()
    found = detector.detect
    detector.detect = lambda rgb: found(rgb) if rgb.shape[:2] == (360, 640) else ()  # type: ignore[method-assign]
    search = FaceSearch(detector, 16, lambda stage, done: None)
    for frame_ in clip(3):
        search.add(frame_)
    assert detector.whole == [True, True, True]


def test_time_is_counted_and_cancelling_passes_through():
    search, *_ = searched(frame(0, 1))
    assert search.ms > 0

    def cancel(stage: str, done: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FaceSearch(OneFace(), 4, cancel).add(frame(0, 1))


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
    (again,) = redetect_near(watched, frame, known)
    (whole,) = face_detector.detect(frame)
    assert overlap(again.box, whole.box) > 0.9
    assert np.abs(again.landmarks - whole.landmarks).max() < 0.05 * whole.box.height
    assert [w * h < 0.3 * 640 * 352 for w, h in watched.sizes] == [True]


def test_two_people_are_followed_each_and_the_largest_comes_first(face_detector, photo):
    known = face_detector.detect(scene(photo, (100, 200), (800, 250)))
    assert len(known) == 2
    again = redetect_near(face_detector, scene(photo, (110, 200), (790, 250)), known[::-1])
    assert {round(face.box.centre[0] / 100) for face in again} == {round(f.box.centre[0] / 100) for f in known}
    assert again[0].box.width * again[0].box.height >= again[1].box.width * again[1].box.height


@pytest.mark.parametrize("places", [(), ((100, 40),)])
def test_who_has_left_or_jumped_is_searched_for_in_the_whole_frame(face_detector, photo, places):
    known = face_detector.detect(scene(photo, (700, 300)))
    assert redetect_near(face_detector, scene(photo, *places), known) is None


def test_nobody_known_and_faces_too_large_for_a_part_give_up_at_once(face_detector, photo):
    watched = Watched(face_detector)
    assert redetect_near(watched, photo, ()) is None
    large = (Face(Box(300, 40, 800, 700), 0.9, np.zeros((5, 2), np.float32)),)
    assert redetect_near(watched, np.zeros((720, 1280, 3), np.uint8), large) is None
    assert watched.sizes == []


def test_doubtful_finds_are_not_taken():
    frame = np.zeros((720, 1280, 3), np.uint8)
    known = (Face(Box(600, 300, 700, 420), 0.9, np.zeros((5, 2), np.float32)),)
    assert redetect_near(Fixed((50, 50, 100, 110)), frame, known) is not None
    assert redetect_near(Fixed((0.5, 50, 50, 110)), frame, known) is None, "cut by the edge of the part"
    assert redetect_near(Fixed((50, 50, 100, 110), (60, 60, 110, 120)), frame, known) is None, "two of them"
    assert redetect_near(Fixed((50, 50, 62, 60)), frame, known) is None, "far too small to be the same"
    both = (*known, Face(Box(620, 310, 720, 430), 0.9, np.zeros((5, 2), np.float32)))
    assert redetect_near(Fixed((50, 50, 100, 110)), frame, both) is None, "both are the same one"
