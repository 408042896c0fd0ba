"""Faces are searched for frame by frame, and near where they were as in the whole frame; in doubt that is searched."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from utils.faces import search as searching
from utils.faces.detector import CenterFaceDetector
from utils.faces.search import LARGE_PX, FaceSearch, redetect_near, with_small_faces
from utils.faces.tracking import view_of
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


def test_a_photo_is_not_compared_with_other_frames(monkeypatch):
    seen: list[int] = []
    monkeypatch.setattr(searching, "view_of", lambda rgb: seen.append(int(rgb[0, 0, 0])) or view_of(rgb))
    searched(frame(0, 1))
    assert seen == [], "12 million pixels would take as long as finding the face"
    searched(frame(0, 1), frame(1, 2), frame(0, 4), frame(1, 4), frame(2, 6), frame(3, 7))
    assert seen == [2, 1, 6, 4, 7], "each once, and the first one when the second is there"


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


# Small faces in large photos: found at every size that is promised, and nothing changes for small photos.

FACE_PX = 118
"""Longer side of the face in the portrait."""


Sees = Callable[[tuple[Face, ...]], tuple[Face, ...] | None]


class Suspecting:
    """The detector, which tells how often it looked for suspects; `sees` is what a glance makes of an exact look."""

    def __init__(self, detector: CenterFaceDetector, sees: Sees = lambda faces: None) -> None:
        self.sees = sees
        self.detector, self.looks, self.glances = detector, 0, 0

    def detect(self, rgb: Pixels) -> tuple[Face, ...]:
        return self.detector.detect(rgb)

    def suspect(self, rgb: Pixels, min_score: float) -> tuple[Face, ...]:
        self.looks += 1
        return self.detector.suspect(rgb, min_score)

    def glance(self, rgb: Pixels, min_score: float) -> tuple[Face, ...] | None:
        self.glances += 1
        return self.sees(self.detector.suspect(rgb, min_score))


def scenery(width: int, height: int, seed: int = 0) -> Pixels:
    """A soft background of many colours with some grain."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(50, 200, (max(2, height // 150), max(2, width // 150), 3), dtype=np.uint8)
    grain = rng.integers(0, 12, (256, 256, 3), dtype=np.uint8)
    soft = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    tiled = np.tile(grain, (height // 256 + 1, width // 256 + 1, 1))[:height, :width]
    return cv2.add(soft, tiled)


def put(canvas: Pixels, photo: Pixels, face_px: int, x: int, y: int) -> None:
    """Paste the portrait so that its face has `face_px` pixels; its centre comes to (x, y)."""
    head = cv2.resize(photo[20:220, 125:325], None, fx=face_px / FACE_PX, fy=face_px / FACE_PX)
    height, width = head.shape[:2]
    canvas[y - height // 2 :, x - width // 2 :][:height, :width] = head


def search(detector, canvas: Pixels) -> tuple[Face, ...]:
    return with_small_faces(detector, canvas, detector.detect(canvas), 40)


@pytest.mark.parametrize(("width", "height"), [(1600, 1200), (4000, 3000), (8160, 6120), (1170, 12000), (6000, 320)])
def test_the_smallest_face_that_is_promised_is_found_in_a_photo_of_any_size(face_detector, photo, width, height):
    canvas = scenery(width, height)
    # so placed that tiles cut through two of them, at half size at pixels 544 and 640
    places = [(300, 160), (1095, min(1100, height - 90)), (width - 100, height - 100)]
    for x, y in places:
        put(canvas, photo, 44, x, y)
    found = search(face_detector, canvas)
    assert len(found) == len(places), "and nothing else"
    for x, y in places:
        assert min(np.hypot(f.box.centre[0] - x, f.box.centre[1] - y) for f in found) < 12
    assert all(40 <= max(face.box.width, face.box.height) < 60 for face in found)


def test_faces_of_every_size_are_found_in_one_photo(face_detector, photo):
    canvas = scenery(6000, 4000, seed=1)
    sizes = [1500, 700, 400, 250, 150, 90]
    places = [(1500, 1500), (3600, 900), (5200, 700), (3600, 2500), (4700, 2300), (5400, 3400)]
    for face_px, (x, y) in zip(sizes, places, strict=True):
        put(canvas, photo, face_px, x, y)
    found = search(face_detector, canvas)
    assert [max(face.box.width, face.box.height) for face in found] == pytest.approx(sizes, rel=0.2)


def test_what_the_whole_gave_stays_and_is_not_found_twice(face_detector, photo):
    canvas = scenery(3000, 2000)
    put(canvas, photo, 600, 900, 900)
    put(canvas, photo, 50, 2500, 1500)
    (large,) = known = face_detector.detect(canvas)
    both = with_small_faces(face_detector, canvas, known, 40)
    assert both[0] is large
    assert len(both) == 2


def test_small_photos_cost_no_further_look_and_large_ones_few(face_detector, photo):
    watched = Suspecting(face_detector)
    known = face_detector.detect(photo)
    assert with_small_faces(watched, scenery(LARGE_PX, 900), known, 40) == known
    assert watched.looks == 0
    assert with_small_faces(watched, scenery(4000, 3000), (), 40) == ()
    assert 12 <= watched.looks <= 24


def test_after_a_glance_only_tiles_with_new_faces_are_looked_at_and_the_same_faces_found(face_detector, photo):
    canvas = scenery(4000, 3000)
    put(canvas, photo, 1500, 1500, 1500)
    put(canvas, photo, 50, 3600, 2600)
    known = face_detector.detect(canvas)
    slow, quick = Suspecting(face_detector), Suspecting(face_detector, lambda faces: faces)
    found = [[f.box for f in with_small_faces(one, canvas, known, 40)] for one in (slow, quick)]
    assert found[0] == found[1]
    assert len(found[0]) == 2
    assert slow.looks >= 12
    assert quick.glances >= 12
    assert quick.looks <= 4, "the tile that holds the small face, its neighbour, and the second look"


def test_in_a_crowd_nobody_goes_on_glancing(face_detector):
    anywhere = Face(Box(300, 300, 340, 340), 0.9, np.zeros((5, 2), np.float32))
    watched = Suspecting(face_detector, lambda faces: (anywhere,))
    assert with_small_faces(watched, scenery(4000, 3000), (), 40) == ()
    assert (watched.glances, watched.looks >= 12) == (2, True)
