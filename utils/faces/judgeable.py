"""Which faces can be judged at all: large enough, whole, and with the detail that a face of that size has.

What the networks say of any other face is no better than a guess, so such a face never decides about a medium.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import cv2
import numpy as np

from utils.faces.crops import FaceCrop
from utils.faces.upright import is_upright
from utils.types import Box, FaceTrack, Notice

SHORT = MappingProxyType(
    {
        "small_face": "too small",
        "face_cut": "cut by the border",
        "face_unsharp": "unsharp or enlarged",
        "face_turned": "not upright",
    }
)
"""Why a face is not judged, in a few words, by the code of the reason."""
COARSE_PX, MIN_DETAIL = 24, 0.075
"""A face is unsharp when hardly anything is lost by shrinking it to this many pixels: less than this share of its
contrast. So are 3 of 2,760 validation faces, 1 % of them shrunk to 40 pixels, 95 % of them enlarged from 16 pixels."""
CUT_SHAPE = (0.6, 1.1)
"""Width by height of the box of a face that a border at its side or below it cuts off: narrower, or wider."""
BORDER = 0.08
"""A box ends at the border where it comes this near, in sides of the face."""


def why_not_judged(
    track: FaceTrack, crops: Sequence[FaceCrop], sizes: Sequence[tuple[int, int]], *, larger: float, min_face_px: int
) -> Notice | None:
    """The reason why a face cannot be judged, by most of its sightings; None where it can.

    Args:
        sizes: (width, height) of the frame of each sighting, pixels.
        larger: pixels of the medium per pixel of the frames.
        min_face_px: longer side of the smallest face that is judged, pixels of the medium.
    """
    boxes = [sighting.face.box for sighting in track.sightings]
    face_px = face_size(track) * larger
    if face_px < min_face_px:
        return Notice("small_face", f"The face is only {face_px:.0f} pixels wide; at least {min_face_px} are needed.")
    if np.median([is_cut(box, *size) for box, size in zip(boxes, sizes, strict=True)]) > 0.5:
        return Notice("face_cut", "The border of the picture cuts the face, and what is left is too little.")
    if np.median([is_upright(sighting.face) for sighting in track.sightings]) < 0.5:
        return Notice("face_turned", "The head does not stand upright; the networks know upright heads only.")
    if np.median([fine_detail(crop) for crop in crops]) < MIN_DETAIL:
        return Notice("face_unsharp", "The face shows no detail: it is out of focus, moving, or enlarged.")
    return None


def face_size(track: FaceTrack) -> float:
    """Longer side of a face, pixels of the frames; the median over its sightings."""
    return float(np.median([max(s.face.box.width, s.face.box.height) for s in track.sightings]))


def fine_detail(crop: FaceCrop) -> float:
    """Share of a face's contrast that is lost when it is shrunk to `COARSE_PX` and enlarged again, from 0.

    Measured in the inner part of the box, so that a sharp background does not count.
    """
    grey = cv2.cvtColor(crop.pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    side, b = grey.shape[0], crop.box
    coarse = max(8, round(side * COARSE_PX / max(b.width, b.height)))
    small = cv2.resize(grey, (coarse, coarse), interpolation=cv2.INTER_AREA)
    lost = np.abs(grey - cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC))
    left, top = (min(max(0, int(v)), side - 1) for v in (b.x0 + 0.1 * b.width, b.y0 + 0.1 * b.height))
    inner = np.s_[top : max(top + 1, int(b.y1 - 0.1 * b.height)), left : max(left + 1, int(b.x1 - 0.1 * b.width))]
    return float(lost[inner].std() / (grey[inner].std() + 1e-6))


def is_cut(box: Box, width: int, height: int) -> bool:
    """Whether the border of a frame of this size leaves only part of a face: the detector's box is what is seen."""
    near = BORDER * max(box.width, box.height)
    narrow, wide = CUT_SHAPE
    beside = box.x0 < near or box.x1 > width - near
    below = box.y0 < near or box.y1 > height - near
    shape = box.width / box.height
    return (beside and shape < narrow) or (below and shape > wide)
