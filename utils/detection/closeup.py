"""A closer look at one face of a finished analysis: heatmaps of the image experts, and whether the verdict is stable.

It costs many times what the analysis itself does, so it is made only when somebody asks for it.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils.detection.explain import HeatMap, explain_face
from utils.detection.pipeline import Analyser, enlargement, examine, no_progress
from utils.detection.stability import Trial, try_changes
from utils.errors import NotFoundError
from utils.faces.crops import crop_square
from utils.faces.search import Progress
from utils.types import Box, FaceTrack, Floats, Media, Sighting

STABILITY_SHARE = 0.35
"""Part of the work that the trials of stability take, for the progress."""


@dataclass(frozen=True)
class Closeup:
    """What a closer look at one face gave.

    Args:
        face: its id in the report.
        frame: the frame that the maps belong to, as in `Frame.index`: the largest sighting of the person.
        time_s: of that frame.
        square: the part of the medium that the maps cover, pixels of the medium.
        maps: one per image expert that is loaded.
        trials: the verdict as it is and under each change.
        model_version: whose networks were asked.
    """

    face: int
    frame: int
    time_s: float
    square: Box
    maps: tuple[HeatMap, ...]
    trials: tuple[Trial, ...]
    model_version: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; a map is a grey-level PNG in base64, or null where no map was made."""
        s = self.square
        return {
            "face": self.face,
            "frame": self.frame,
            "time_s": self.time_s,
            "square": [s.x0, s.y0, s.x1, s.y1],
            "model_version": self.model_version,
            "maps": [
                {
                    "expert": m.expert,
                    "title": m.title,
                    "method": m.method,
                    "png": None if m.grid is None else base64.b64encode(to_png(m.grid)).decode(),
                    "gain": round(m.faithfulness.gain, 4),
                    "random_gain": round(m.faithfulness.random_gain, 4),
                    "beaten": m.faithfulness.beaten,
                    "masks": len(m.faithfulness.random),
                    "faithful": m.grid is not None and m.faithfulness.better,
                }
                for m in self.maps
            ],
            "trials": [
                {
                    "code": t.code,
                    "title": t.title,
                    "outcome": t.outcome.value,
                    "probability": t.probability,
                    "flipped": t.flipped,
                }
                for t in self.trials
            ],
        }


def look_closer(path: Path, analyser: Analyser, face: int, *, progress: Progress = no_progress) -> Closeup:
    """Explain one face of a file and try how stable the verdict about it is.

    Args:
        path: the file, as it was analysed.
        analyser: with the torch engine; best the version that gave the verdict.
        face: id of the face in the report.
        progress: called with stage and share of the whole, 0..1; may raise to cancel.

    Raises:
        MediaError: the file cannot be decoded (any more).
        NotFoundError: no such face is found in it.
    """
    people = examine(path, analyser, progress=lambda stage, done: progress(stage, 0.3 * done), keep_pixels=True)
    person = next((person for person in people.judged if person.track.id == face), None)
    if person is None:
        raise NotFoundError(f"The file has no face {face}.")
    media, sightings = people.media, person.track.sightings
    index = largest(person.track)
    progress("stability", 0.15)
    trials = try_changes(
        person.track, media, analyser, lambda stage, done: progress(stage, 0.15 + STABILITY_SHARE * done)
    )
    rest = 0.85 - STABILITY_SHARE
    maps = explain_face(
        person.crops[index].pixels, analyser, lambda stage, done: progress(stage, 1 - rest * (1 - done))
    )
    return Closeup(
        face=face,
        frame=sightings[index].frame,
        time_s=media.frames[sightings[index].frame].time_s,
        square=square_in_medium(sightings[index], media),
        maps=maps,
        trials=trials,
        model_version=analyser.version,
    )


def largest(track: FaceTrack) -> int:
    """Which sighting has the largest box, the first of equals."""
    sides = [max(seen.face.box.width, seen.face.box.height) for seen in track.sightings]
    return sides.index(max(sides))


def square_in_medium(seen: Sighting, media: Media) -> Box:
    """The square that the networks see of a sighting, in pixels of the medium (large videos are decoded smaller)."""
    height, width = media.frames[seen.frame].pixels.shape[:2]
    square = crop_square(seen.face.box, width, height)
    larger = enlargement(media)
    return Box(square.x0 * larger, square.y0 * larger, square.x1 * larger, square.y1 * larger)


def to_png(grid: Floats) -> bytes:
    """A map (h, w) of 0..1 as 8-bit grey PNG of the same few pixels; the page enlarges it smoothly."""
    done, packed = cv2.imencode(".png", np.round(np.clip(grid, 0, 1) * 255).astype(np.uint8))
    if not done:
        raise ValueError("the map could not be encoded as PNG")
    return packed.tobytes()
