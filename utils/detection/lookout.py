"""Face detection over the frames of one medium, frame by frame as the decoder hands them on.

Every fourth frame is searched as a whole, which finds newcomers; in between, faces are looked for near where they were.

Stands between `decode_media`, which tells of each frame while it decodes the next ones, and the tracks of people.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from utils.faces.detector import FaceDetector
from utils.faces.following import follow_faces
from utils.faces.tracking import track_faces
from utils.types import Face, FaceTrack, Frame, Pixels

WHOLE_EVERY = 4
"""Frames from one that is searched as a whole to the next; whoever is in view that long is found."""

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
        self._found: list[tuple[Face, ...]] = []
        self._last: Pixels | None = None
        self._told = 0.2
        self.ms = 0.0
        """Spent on searching so far."""

    def look(self, frame: Frame) -> None:
        """Find the faces of the next frame; index 0 begins anew. Where it equals its forerunner, so do its faces."""
        started = time.perf_counter()
        if frame.index == 0:
            self._found, self._last = [], None
        same = self._last is not None and np.array_equal(frame.pixels, self._last)
        self._found.append(self._found[-1] if same else self._faces(frame.pixels))
        self._last = frame.pixels
        self._told = max(self._told, min(0.5, 0.2 + 0.3 * len(self._found) / self._expected))
        self.ms += 1000 * (time.perf_counter() - started)
        self._tell("detect", self._told)

    def _faces(self, pixels: Pixels) -> tuple[Face, ...]:
        if len(self._found) % WHOLE_EVERY:
            again = follow_faces(self._detector, pixels, self._found[-1])
            if again is not None:
                return again
        return self._detector.detect(pixels)

    def people(self) -> list[FaceTrack]:
        """Everybody seen so far, the largest face first."""
        return list(track_faces(self._found))
