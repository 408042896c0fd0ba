"""Search the frames of one medium for faces, frame by frame as the decoder hands them on.

Now and then a whole frame is searched, which finds newcomers; in between, faces are looked for near where they were, at
the scale at which a whole frame is searched. Whatever is in doubt (a face that is not found again, or cut by the edge
of the part, or taken for its neighbour) leads to a search of the whole frame. Where somebody new is found, the frames
in between are searched as well; whoever is seen in none of the whole ones was there too shortly to be kept.

A large photo has faces that are too small where the whole of it is searched at 640 pixels. It is looked at in tiles of
half its size, where a face of 40 pixels has 20: CenterFace suspects 93 of 100 of them there, and much else. Each
suspicion is looked at once more at a size that the detector knows well, and counts if it is an upright face there. What
the search of the whole found stays as it is. With bf16, a glance tells first which tiles may have a face to look for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np

from utils.faces.crops import crop_square, resize
from utils.faces.detector import MAX_SIDE, MULTIPLE, FaceDetector, network_size, shared_area
from utils.faces.judgeable import is_upright
from utils.faces.tracking import MIN_SHARE, Look, View, is_cut, look_of, match_cost, thinned, track_faces, view_of
from utils.types import Box, Face, FaceTrack, Floats, Frame, Pixels

WHOLE_EVERY = 4
"""Most frames from one that is searched as a whole to the next; fewer of short clips, see `FaceSearch`."""
SURROUNDINGS = 1.8
"""Side of the part that is searched, in sides of the face: it may move by two fifths of itself."""
SIDES = (160, 224, 288, 352, 384)
"""Sides of that part as the detector sees it, pixels; few, since a size that is new to the engine costs much once."""
WORTH_IT = 0.6  # parts that make up more of the frame than this are not worth the trouble
EDGE_PX = 2.0
"""A face this near to an inner edge of the part, in the detector's pixels, may go on beyond it."""

MOST_CROPS = 48
"""Sightings of one person that are kept at most, evenly spread: the networks then take three times as long for a minute
as for a clip of 16 frames."""

LARGE_PX = 1280
"""Photos whose longer side exceeds this are looked at in tiles; in smaller ones a face of 40 pixels has 20 anyway."""
SCALE = 0.5
OVERLAP = 96
"""Of neighbouring tiles, pixels; larger faces are found at the next smaller scale or in the whole."""
SMALLEST = 24
"""Faces of so many pixels are found where the whole is searched: below that, a further scale stands in between."""
GLANCE, SUSPICION, SURE = 0.15, 0.2, 0.5
"""Detector scores from which a tile is looked at after a glance, a tile's face again, and from which it is one."""
AROUND, AGAIN_PX = 3.0, 160
"""What is looked at again: a square so many times as large as the face, at this size."""

Progress = Callable[[str, float], None]
"""Stage (`decode`, `detect`, `experts`, `decide`) and how much of the whole is done, 0..1; may raise to cancel."""


class FaceSearch:
    """Finds the people of a medium whose frames come one after another.

    Args:
        expected: how many frames may come, for the progress.
        progress: called with the stage `detect` after each.
    """

    def __init__(self, detector: FaceDetector, expected: int, progress: Progress) -> None:
        self._detector, self._expected, self._progress = detector, expected, progress
        self._every = max(1, min(WHOLE_EVERY, math.ceil(MIN_SHARE * expected)))
        self._in_part: dict[int, Pixels] = {}  # frames since the last whole search
        self._found: list[tuple[Face, ...]] = []
        self._looks: list[list[Look]] = []
        self._cuts: list[int] = []
        self._last: Pixels | None = None
        self._view: View | None = None
        self._done = 0.2
        self.ms = 0.0  # spent on searching so far

    def add(self, frame: Frame) -> None:
        """Find the faces of the next frame; index 0 begins anew. Where it equals the one before, so do its faces."""
        started = time.perf_counter()
        if frame.index == 0:
            self._found, self._looks, self._cuts, self._last, self._in_part = [], [], [], None, {}
        same = self._last is not None and np.array_equal(frame.pixels, self._last)
        if not same:
            before, self._view = self._view, None
            if self._last is not None:  # a photo's view is never asked for
                self._view = view_of(frame.pixels)
                if is_cut(before or view_of(self._last), self._view):
                    self._cuts.append(len(self._found))
        self._found.append(self._found[-1] if same else self._faces(frame.pixels))
        self._looks.append(self._looks[-1] if same else _looks_of(frame.pixels, self._found[-1]))
        self._last = frame.pixels
        self._done = max(self._done, min(0.5, 0.2 + 0.3 * len(self._found) / self._expected))
        self.ms += 1000 * (time.perf_counter() - started)
        self._progress("detect", self._done)

    @property
    def found(self) -> Sequence[tuple[Face, ...]]:
        """The faces of each frame so far."""
        return self._found

    def tracks(self) -> list[FaceTrack]:
        """Everybody seen so far, the largest face first."""
        found = track_faces(self._found, looks=self._looks, cuts=self._cuts)
        return [thinned(track, MOST_CROPS) for track in found]

    def _faces(self, pixels: Pixels) -> tuple[Face, ...]:
        known = self._found[-1] if self._found else ()
        if len(self._found) % self._every:
            again = redetect_near(self._detector, pixels, known)
            if again is not None:
                self._in_part[len(self._found)] = pixels
                return again
        faces = self._detector.detect(pixels)
        if any(all(math.isinf(match_cost(old.box, face.box)) for old in known) for face in faces):
            for number, earlier in self._in_part.items():
                self._found[number] = self._detector.detect(earlier)
                self._looks[number] = _looks_of(earlier, self._found[number])
        self._in_part = {}
        return faces


def _looks_of(pixels: Pixels, faces: Sequence[Face]) -> list[Look]:
    return [look_of(pixels, face) for face in faces]


def redetect_near(detector: FaceDetector, rgb: Pixels, known: Sequence[Face]) -> tuple[Face, ...] | None:
    """The known faces in a frame, the largest first; None where the whole frame has to be searched."""
    height, width = rgb.shape[:2]
    extent = np.array(network_size(width, height), np.float32)  # as which the detector sees the whole frame
    scale: Floats = np.divide(extent, (width, height), dtype=np.float32)
    sides = [_side_for(face, scale) for face in known]
    if not known or any(side is None or side > extent.min() for side in sides):
        return None
    if sum(side**2 for side in sides if side) > WORTH_IT * extent.prod():
        return None
    found: list[Face] = []
    for face, side in zip(known, sides, strict=True):
        again = _redetect(detector, rgb, face, side or 0, extent, scale)
        if again is None or any(shared_area(again.box, other.box) > 0 for other in found):
            return None
        found.append(again)
    return tuple(sorted(found, key=lambda f: f.box.width * f.box.height, reverse=True))


def _side_for(face: Face, scale: Floats) -> int | None:
    wanted = SURROUNDINGS * float((scale * (face.box.width, face.box.height)).max())
    return next((side for side in SIDES if side >= wanted), None)


def _redetect(detector: FaceDetector, rgb: Pixels, face: Face, side: int, extent: Floats, scale: Floats) -> Face | None:
    """The one face near a known one, in pixels of the frame; `extent` and `scale` are those of the whole frame."""
    start = np.round((scale * face.box.centre - side / 2) / MULTIPLE) * MULTIPLE  # on the same grid of cells
    start = np.clip(start, 0, extent - side)
    left, top = (int(v) for v in np.round(start / scale))
    right, bottom = (int(v) for v in np.round((start + side) / scale))
    part = rgb[top:bottom, left:right]
    method = cv2.INTER_AREA if scale.max() < 1 else cv2.INTER_LINEAR
    resized = np.asarray(cv2.resize(part, (side, side), interpolation=method), np.uint8)
    grow = np.array([part.shape[1] / side, part.shape[0] / side], np.float32)
    again = [moved(other, grow, left, top) for other in detector.detect(resized)]
    near = [other for other in again if np.isfinite(match_cost(face.box, other.box))]
    if len(near) != 1:
        return None
    box, edge = near[0].box, EDGE_PX * grow
    cut = (
        (left > 0 and box.x0 < left + edge[0])
        or (top > 0 and box.y0 < top + edge[1])
        or (right < rgb.shape[1] and box.x1 > right - edge[0])
        or (bottom < rgb.shape[0] and box.y1 > bottom - edge[1])
    )
    return None if cut else near[0]


def moved(face: Face, grow: Floats, left: float, top: float) -> Face:
    """A face of the part in pixels of the frame."""
    (x, y), b = (float(v) for v in grow), face.box
    box = Box(b.x0 * x + left, b.y0 * y + top, b.x1 * x + left, b.y1 * y + top)
    return Face(box, face.score, (face.landmarks * grow + [left, top]).astype(np.float32))


def with_small_faces(
    detector: FaceDetector, rgb: Pixels, known: Sequence[Face], min_face_px: float
) -> tuple[Face, ...]:
    """The known faces of a photo and, if it is large, its small ones that can be judged, the largest first.

    Args:
        min_face_px: smaller ones are not looked for, pixels.
    """
    height, width = rgb.shape[:2]
    found = list(known)

    def is_new(box: Box) -> bool:
        return max(box.width, box.height) >= 0.8 * min_face_px and not _is_known(box, found)

    for scale in _scales(max(height, width)):
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        reduced = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
        grow = np.array([width / size[0], height / size[1]], np.float32)
        for suspected in _suspected(detector, reduced, grow, is_new):
            if not is_new(suspected):
                continue
            face = _look_again(detector, rgb, suspected)
            if face and max(face.box.width, face.box.height) >= min_face_px and not _is_known(face.box, found):
                found.append(face)
    return tuple(sorted(found, key=lambda f: f.box.width * f.box.height, reverse=True))


def _scales(side: int) -> list[float]:
    """The scales at which a photo with this longer side is looked at in tiles, the largest first."""
    scales: list[float] = []
    scale, whole = SCALE, MAX_SIDE / side
    while side > LARGE_PX and (not scales or scales[-1] * SMALLEST > whole * OVERLAP):
        scales.append(scale)
        scale /= 2
    return scales


def _suspected(detector: FaceDetector, reduced: Pixels, grow: Floats, is_new: Callable[[Box], bool]) -> Iterator[Box]:
    """Where tiles may have faces, in pixels of the photo; of tiles without new ones nothing need be told."""
    height, width = reduced.shape[:2]
    patience = 2  # in a crowd glances spare nothing
    for top in _starts(height):
        for left in _starts(width):
            tile = np.ascontiguousarray(reduced[top : top + MAX_SIDE, left : left + MAX_SIDE])
            corner = (left * float(grow[0]), top * float(grow[1]))
            glance = detector.glance(tile, GLANCE) if patience else None
            if glance is not None:
                spared = not any(is_new(moved(face, grow, *corner).box) for face in glance)
                patience += 1 if spared else -1
                if spared:
                    continue
            for face in detector.suspect(tile, SUSPICION):
                yield moved(face, grow, *corner).box


def _starts(length: int) -> list[int]:
    """Where tiles begin along a side: the last one ends with it."""
    last = max(0, length - MAX_SIDE)
    return sorted({*range(0, last, MAX_SIDE - OVERLAP), last})


def _look_again(detector: FaceDetector, rgb: Pixels, box: Box) -> Face | None:
    """The upright face at a place of the photo, or None."""
    square = crop_square(box, rgb.shape[1], rgb.shape[0], AROUND)
    left, top, right, bottom = (int(v) for v in (square.x0, square.y0, square.x1, square.y1))
    grow = np.full(2, (right - left) / AGAIN_PX, np.float32)
    looks = detector.suspect(resize(rgb[top:bottom, left:right], AGAIN_PX), SURE)
    faces = [moved(face, grow, left, top) for face in looks if is_upright(face)]
    near = [face for face in faces if np.isfinite(match_cost(box, face.box))]
    return max(near, key=lambda face: face.score, default=None)


def _is_known(box: Box, known: Sequence[Face]) -> bool:
    """Whether a face is there already, of this or another size."""
    area = box.width * box.height
    return any(shared_area(box, other.box) > 0.3 * min(area, other.box.width * other.box.height) for other in known)
