"""Find the faces of a large photo that are too small where the whole of it is searched at 640 pixels.

The photo is looked at in tiles of half its size, where a face of 40 pixels has 20: CenterFace suspects 93 of 100 of
them there, and much else. Each suspicion is looked at once more at a size that the detector knows well, and counts if
it is an upright face there. What the search of the whole found stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from utils.faces.crops import crop_square, resize
from utils.faces.detector import MAX_SIDE, FaceDetector, shared_area
from utils.faces.search import moved
from utils.faces.tracking import match_cost
from utils.faces.upright import is_upright
from utils.types import Box, Face, Floats, Pixels

LARGE_PX = 1280
"""Photos whose longer side exceeds this are looked at in tiles; in smaller ones a face of 40 pixels has 20 anyway."""
SCALE = 0.5
OVERLAP = 96
"""Of neighbouring tiles, pixels; larger faces are found at the next smaller scale or in the whole."""
SMALLEST = 24
"""Faces of so many pixels are found where the whole is searched: below that, a further scale stands in between."""
SUSPICION, SURE = 0.2, 0.5
"""Detector scores from which a tile's face is looked at again, and from which it is one."""
AROUND, AGAIN_PX = 3.0, 160
"""What is looked at again: a square so many times as large as the face, at this size."""


def with_small_faces(
    detector: FaceDetector, rgb: Pixels, known: Sequence[Face], min_face_px: float
) -> tuple[Face, ...]:
    """The known faces of a photo and, if it is large, its small ones that can be judged, the largest first.

    Args:
        rgb: (H, W, 3) uint8, the photo.
        min_face_px: smaller ones are not looked for, pixels.
    """
    height, width = rgb.shape[:2]
    found = list(known)
    for scale in _scales(max(height, width)):
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        reduced = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
        grow = np.array([width / size[0], height / size[1]], np.float32)
        for suspected in _suspected(detector, reduced, grow):
            if max(suspected.width, suspected.height) < 0.8 * min_face_px or _is_known(suspected, found):
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


def _suspected(detector: FaceDetector, reduced: Pixels, grow: Floats) -> Iterator[Box]:
    """Where tiles of the reduced photo may have faces, in pixels of the photo."""
    height, width = reduced.shape[:2]
    for top in _starts(height):
        for left in _starts(width):
            tile = np.ascontiguousarray(reduced[top : top + MAX_SIDE, left : left + MAX_SIDE])
            for face in detector.suspect(tile, SUSPICION):
                yield moved(face, grow, left * float(grow[0]), top * float(grow[1])).box


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
