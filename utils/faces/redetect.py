"""Find known faces again in the next frame: look near them only, at the scale at which a whole frame is searched.

Stands beside the detector: it knows nothing of networks and asks the detector about a part of the frame. Whatever is in
doubt (a face that is not found again, or cut by the part's edge, or taken for its neighbour) makes it give up, and the
caller searches the whole frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from utils.faces.detector import MULTIPLE, FaceDetector, network_size
from utils.faces.tracking import apart
from utils.types import Box, Face, Floats, Pixels

SURROUNDINGS = 1.8
"""Side of the part that is searched, in sides of the face: it may move by two fifths of itself."""
SIDES = (160, 224, 288, 352, 384)
"""Sides of that part as the detector sees it, pixels; few, since a size that is new to the engine costs much once."""
WORTH_IT = 0.6
"""Parts that make up more of the frame than this are not worth the trouble."""
EDGE_PX = 2.0
"""A face this near to an inner edge of the part, in the detector's pixels, may go on beyond it."""


def follow_faces(detector: FaceDetector, rgb: Pixels, known: Sequence[Face]) -> tuple[Face, ...] | None:
    """The known faces in a frame, the largest first; None where the whole frame has to be searched.

    Args:
        detector: as for whole frames.
        rgb: (H, W, 3) uint8, the next frame.
        known: faces of the frame before.
    """
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
        again = _look_near(detector, rgb, face, side or 0, extent, scale)
        if again is None or any(_overlap(again.box, other.box) > 0 for other in found):
            return None
        found.append(again)
    return tuple(sorted(found, key=lambda f: f.box.width * f.box.height, reverse=True))


def _side_for(face: Face, scale: Floats) -> int | None:
    wanted = SURROUNDINGS * float((scale * (face.box.width, face.box.height)).max())
    return next((side for side in SIDES if side >= wanted), None)


def _look_near(
    detector: FaceDetector, rgb: Pixels, face: Face, side: int, extent: Floats, scale: Floats
) -> Face | None:
    """The one face near a known one, in pixels of the frame; `extent` and `scale` are those of the whole frame."""
    start = np.round((scale * face.box.centre - side / 2) / MULTIPLE) * MULTIPLE  # on the same grid of cells
    start = np.clip(start, 0, extent - side)
    left, top = (int(v) for v in np.round(start / scale))
    right, bottom = (int(v) for v in np.round((start + side) / scale))
    part = rgb[top:bottom, left:right]
    method = cv2.INTER_AREA if scale.max() < 1 else cv2.INTER_LINEAR
    seen = np.asarray(cv2.resize(part, (side, side), interpolation=method), np.uint8)
    grow = np.array([part.shape[1] / side, part.shape[0] / side], np.float32)
    moved = [_moved(other, grow, left, top) for other in detector.detect(seen)]
    near = [other for other in moved if np.isfinite(apart(face.box, other.box))]
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


def _moved(face: Face, grow: Floats, left: int, top: int) -> Face:
    """A face of the part in pixels of the frame."""
    (x, y), b = (float(v) for v in grow), face.box
    box = Box(b.x0 * x + left, b.y0 * y + top, b.x1 * x + left, b.y1 * y + top)
    return Face(box, face.score, (face.landmarks * grow + [left, top]).astype(np.float32))


def _overlap(a: Box, b: Box) -> float:
    """Area that two boxes share, pixels²."""
    return max(min(a.x1, b.x1) - max(a.x0, b.x0), 0) * max(min(a.y1, b.y1) - max(a.y0, b.y0), 0)
