"""Face detection over the frames of one medium, frame by frame as the decoder hands them on.

Now and then a whole frame is searched, which finds newcomers; in between, faces are looked for near where they were.
Where somebody new is found, the frames in between are searched as well; whoever is seen in none of the whole ones would
be dropped anyway for having been there too shortly.

Stands between `decode_media`, which tells of each frame while it decodes the next ones, and the tracks of people.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from utils.faces.detector import FaceDetector
from utils.faces.redetect import follow_faces
from utils.faces.tracking import MIN_SHARE, apart, track_faces
from utils.types import Face, FaceTrack, Frame, Pixels

WHOLE_EVERY = 4
"""Most frames from one that is searched as a whole to the next; fewer of short clips, see `Lookout`."""

Progress = Callable[[str, float], None]
"""Stage (`decode`, `detect`, `experts`, `decide`) and how much of the whole is done, 0..1; may raise to cancel."""


class Lookout:
    """Searches frames for faces.

    Args:
        detector: looks at each frame.
        expected: how many frames may come, for the progress.
        tell: told of the stage `detect` after each.
    """

    def __init__(self, detector: FaceDetector, expected: int, tell: Progress) -> None:
        self._detector, self._expected, self._tell = detector, expected, tell
        self._every = max(1, min(WHOLE_EVERY, math.ceil(MIN_SHARE * expected)))
        self._followed: dict[int, Pixels] = {}  # frames since the last whole search
        self._found: list[tuple[Face, ...]] = []
        self._last: Pixels | None = None
        self._told = 0.2
        self.ms = 0.0
        """Spent on searching so far."""

    def look(self, frame: Frame) -> None:
        """Find the faces of the next frame; index 0 begins anew. Where it equals its forerunner, so do its faces."""
        started = time.perf_counter()
        if frame.index == 0:
            self._found, self._last, self._followed = [], None, {}
        same = self._last is not None and np.array_equal(frame.pixels, self._last)
        self._found.append(self._found[-1] if same else self._faces(frame.pixels))
        self._last = frame.pixels
        self._told = max(self._told, min(0.5, 0.2 + 0.3 * len(self._found) / self._expected))
        self.ms += 1000 * (time.perf_counter() - started)
        self._tell("detect", self._told)

    def _faces(self, pixels: Pixels) -> tuple[Face, ...]:
        known = self._found[-1] if self._found else ()
        if len(self._found) % self._every:
            again = follow_faces(self._detector, pixels, known)
            if again is not None:
                self._followed[len(self._found)] = pixels
                return again
        faces = self._detector.detect(pixels)
        if any(all(math.isinf(apart(old.box, face.box)) for old in known) for face in faces):
            for number, earlier in self._followed.items():
                self._found[number] = self._detector.detect(earlier)
        self._followed = {}
        return faces

    def people(self) -> list[FaceTrack]:
        """Everybody seen so far, the largest face first."""
        return list(track_faces(self._found))
