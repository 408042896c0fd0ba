"""Faces are searched for frame by frame: once per picture, anew where decoding began anew."""

from __future__ import annotations

import numpy as np
import pytest

from utils.faces.search import Lookout
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


def look(*frames: Frame) -> tuple[Lookout, OneFace, list[float]]:
    detector, told = OneFace(), []
    lookout = Lookout(detector, 4, lambda stage, done: told.append(done))
    for one in frames:
        lookout.look(one)
    return lookout, detector, told


def test_equal_frames_are_searched_once():
    lookout, detector, _ = look(frame(0, 1), frame(1, 1), frame(2, 3), frame(3, 1))
    assert detector.asked == 3
    (track,) = lookout.people()
    assert [round(s.face.box.x0) for s in track.sightings] == [1, 1, 3, 1]


def test_a_new_beginning_forgets_what_was_seen():
    lookout, detector, told = look(frame(0, 1), frame(1, 2), frame(0, 2), frame(1, 4))
    assert detector.asked == 4, "the first frame of a new beginning equals none before it"
    (track,) = lookout.people()
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
    lookout = Lookout(detector, expected, lambda stage, done: None)
    for frame_ in clip(9):
        lookout.look(frame_)
    assert detector.whole == [index % every == 0 for index in range(9)]
    (track,) = lookout.people()
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
    lookout = Lookout(detector, 16, lambda stage, done: None)
    for frame_ in clip(8):
        lookout.look(frame_)
    first, second = lookout.people()
    assert [s.frame for s in first.sightings] == list(range(8))
    assert [s.frame for s in second.sightings][:3] == [2, 3, 4]


def test_a_face_that_is_lost_is_searched_for_in_the_whole_frame():
    detector = Sizes()
    found = detector.detect
    detector.detect = lambda rgb: found(rgb) if rgb.shape[:2] == (360, 640) else ()  # type: ignore[method-assign]
    lookout = Lookout(detector, 16, lambda stage, done: None)
    for frame_ in clip(3):
        lookout.look(frame_)
    assert detector.whole == [True, True, True]


def test_time_is_counted_and_cancelling_passes_through():
    lookout, *_ = look(frame(0, 1))
    assert lookout.ms > 0

    def cancel(stage: str, done: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Lookout(OneFace(), 4, cancel).look(frame(0, 1))
