"""Small faces in large photos: found at every size that is promised, and nothing changes for small photos."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from utils.faces.detector import CenterFaceDetector
from utils.faces.search import LARGE_PX, with_small_faces
from utils.types import Face, Pixels

FACE_PX = 118
"""Longer side of the face in the portrait."""


class Watched:
    """The detector, which tells how often it looked for suspects."""

    def __init__(self, detector: CenterFaceDetector) -> None:
        self.detector, self.looks = detector, 0

    def detect(self, rgb: Pixels) -> tuple[Face, ...]:
        return self.detector.detect(rgb)

    def suspect(self, rgb: Pixels, min_score: float) -> tuple[Face, ...]:
        self.looks += 1
        return self.detector.suspect(rgb, min_score)


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
    watched = Watched(face_detector)
    known = face_detector.detect(photo)
    assert with_small_faces(watched, scenery(LARGE_PX, 900), known, 40) == known
    assert watched.looks == 0
    assert with_small_faces(watched, scenery(4000, 3000), (), 40) == ()
    assert 12 <= watched.looks <= 24
