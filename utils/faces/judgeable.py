"""Which faces can be judged at all: large enough, whole, upright, and with the detail that a face of that size has.

What the networks say of any other face is no better than a guess, so such a face never decides about a medium.

A medium whose people lie in it, a turned picture whose orientation tag was lost, is turned upright first. The landmarks
tell: below the eyes is the mouth. Where no face stands upright beyond doubt the three other turns are looked at, and
the one is taken in which faces stand upright with a higher score. Boxes go back into the medium as it is stored, and
shown, by `as_stored`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from utils.faces.crops import FaceCrop
from utils.faces.detector import FaceDetector
from utils.types import Box, Face, FaceTrack, Frame, Media, Notice, Pixels

COARSE_PX, MIN_DETAIL = 24, 0.075
"""A face is unsharp when hardly anything is lost by shrinking it to this many pixels: less than this share of its
contrast. So are 3 of 2,760 validation faces, 1 % of them shrunk to 40 pixels, 95 % of them enlarged from 16 pixels."""
CUT_SHAPE = (0.6, 1.1)
"""Width by height of the box of a face that a border at its side or below it cuts off: narrower, or wider."""
BORDER = 0.08
"""A box ends at the border where it comes this near, in sides of the face."""

DOWN, ASIDE = 0.28, 0.25
"""From the eyes to the mouth of an upright head: at least so far down and at most so far aside, in sides of the box. Of
2,761 validation faces 2 are otherwise."""
SURE_UPRIGHT = 0.8
"""Score of an upright face from which nobody doubts: an upside-down one is taken for upright with a lower one."""
TURN_FRAMES = 3
"""Frames of a clip that are looked at."""
LOOK_PX = 1600
"""Larger frames are looked at in this size, their longer side, pixels."""
TURNS = {1: "by 90 degrees to the left", 2: "by 180 degrees", 3: "by 90 degrees to the right"}


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


def is_upright(face: Face) -> bool:
    """Whether the mouth is below the eyes."""
    left_eye, right_eye, _, left_mouth, right_mouth = face.landmarks
    aside, down = (left_mouth + right_mouth - left_eye - right_eye) / 2
    side = max(face.box.width, face.box.height)
    return bool(down >= DOWN * side and abs(aside) <= ASIDE * side)


def find_turn(detector: FaceDetector, frames: Sequence[Frame], found: Sequence[Sequence[Face]]) -> int:
    """Quarter turns to the left that make the people of a medium stand upright, 0 to 3; 0 also where none is better."""
    places = [i for i, faces in enumerate(found) if faces] or range(len(frames))
    chosen = [places[i] for i in np.linspace(0, len(places) - 1, min(TURN_FRAMES, len(places))).round().astype(int)]
    scores = [float(np.mean([_uprightness(found[i]) for i in chosen]))]
    if scores[0] >= SURE_UPRIGHT:
        return 0
    small = [_reduced(frames[i].pixels) for i in chosen]
    for turn in (1, 2, 3):
        looks = [detector.detect(np.ascontiguousarray(np.rot90(pixels, turn))) for pixels in small]
        scores.append(float(np.mean([_uprightness(faces) for faces in looks])))
    return int(np.argmax(scores))


def _uprightness(faces: Sequence[Face]) -> float:
    """The highest score of an upright face, 0 without one."""
    return max((face.score for face in faces if is_upright(face)), default=0.0)


def _reduced(pixels: Pixels) -> Pixels:
    shrink = LOOK_PX / max(pixels.shape[:2])
    if shrink >= 1:
        return pixels
    return np.asarray(cv2.resize(pixels, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA), np.uint8)


def turn_upright(media: Media, turn: int) -> Media:
    """A medium with its frames turned, and a notice that says so; what is told of the file stays."""
    frames = tuple(Frame(f.index, f.time_s, np.ascontiguousarray(np.rot90(f.pixels, turn))) for f in media.frames)
    text = f"Heads lie in it and no orientation tag says so; it was judged turned {TURNS[turn]}."
    return replace(media, frames=frames, notices=(*media.notices, Notice("turned", text)), turned=turn)


def as_stored(box: Box, media: Media) -> Box:
    """A box of a frame in pixels of the medium as it is stored and shown."""
    height, width = media.frames[0].pixels.shape[:2]
    for _ in range(media.turned):
        box = Box(height - box.y1, box.x0, height - box.y0, box.x1)
        height, width = width, height
    return box.scaled(enlargement(media))


def enlargement(media: Media) -> float:
    """Pixels of the medium per pixel of its frames: large videos are decoded smaller."""
    across = int(media.frames[0].pixels.shape[media.turned % 2 == 0])
    return media.info.width / across
