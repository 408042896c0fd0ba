"""Turn a medium upright whose people lie in it: turned pictures whose orientation tag was lost.

The landmarks tell: below the eyes is the mouth. Where no face stands upright beyond doubt the three other turns are
looked at, and the one is taken in which faces stand upright with a higher score. Boxes go back into the medium as it is
stored, and shown, by `as_stored`.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from utils.faces.detector import FaceDetector
from utils.types import Box, Face, Frame, Media, Notice, Pixels

DOWN, ASIDE = 0.28, 0.25
"""From the eyes to the mouth of an upright head: at least so far down and at most so far aside, in sides of the box. Of
2,761 validation faces 2 are otherwise."""
SURE = 0.8
"""Score of an upright face from which nobody doubts: an upside-down one is taken for upright with a lower one."""
FRAMES = 3
"""Frames of a clip that are looked at."""
LOOK_PX = 1600
"""Larger frames are looked at in this size, their longer side, pixels."""
WORDS = {1: "by 90 degrees to the left", 2: "by 180 degrees", 3: "by 90 degrees to the right"}


def is_upright(face: Face) -> bool:
    """Whether the mouth is below the eyes."""
    left_eye, right_eye, _, left_mouth, right_mouth = face.landmarks
    aside, down = (left_mouth + right_mouth - left_eye - right_eye) / 2
    side = max(face.box.width, face.box.height)
    return bool(down >= DOWN * side and abs(aside) <= ASIDE * side)


def find_turn(detector: FaceDetector, frames: Sequence[Frame], found: Sequence[Sequence[Face]]) -> int:
    """Quarter turns to the left that make the people of a medium stand upright, 0 to 3; 0 also where none is better."""
    places = [i for i, faces in enumerate(found) if faces] or range(len(frames))
    chosen = [places[i] for i in np.linspace(0, len(places) - 1, min(FRAMES, len(places))).round().astype(int)]
    scores = [float(np.mean([_uprightness(found[i]) for i in chosen]))]
    if scores[0] >= SURE:
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
    text = f"Heads lie in it and no orientation tag says so; it was judged turned {WORDS[turn]}."
    return Media(media.info, frames, (*media.notices, Notice("turned", text)), turned=turn)


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
