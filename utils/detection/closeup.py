"""A closer look at one face of a finished analysis: heatmaps of the image experts, whether the verdict is stable, and
in a clip with sound whether the lips fit the voice.

It costs many times what the analysis itself does, so it is made only when somebody asks for it. For stability every
frame is re-encoded, rescaled or cut a little differently, which changes nothing for a person, and the person is judged
again. A verdict that flips then rests on little; it is information for the reader and never alters the verdict.
"""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils.detection.explain import HeatMap, explain_face
from utils.detection.lips import LipFit, fit_lips
from utils.detection.people import Change, cut
from utils.detection.pipeline import Analyser, examine, judge, no_progress
from utils.errors import NotFoundError
from utils.faces.crops import crop_square, jpeg
from utils.faces.judgeable import as_stored
from utils.faces.search import Progress
from utils.types import Box, Face, FaceTrack, Floats, Media, Outcome, Pixels, Sighting

STABILITY_SHARE = 0.35
"""Part of the work that the trials of stability take, for the progress."""
JPEG_QUALITY = 50
RESCALE = 0.5
SHIFT = 0.06
"""Share of the face box by which the cut is moved, to the right and down."""


@dataclass(frozen=True)
class Trial:
    """What became of the verdict under one change; `flipped` when the outcome is another than without it.

    `code` is stable, for programs: `as_is`, `jpeg`, `half_size`, `shifted`.
    """

    code: str
    title: str
    outcome: Outcome
    probability: float
    flipped: bool


@dataclass(frozen=True)
class Closeup:
    """What a closer look at one face gave.

    Args:
        frame: the frame that the maps belong to, as in `Frame.index`: the largest sighting of the person.
        square: the part of the medium that the maps cover, pixels of the medium.
        lips: whether they fit the voice; None where there is no sound.
    """

    face: int
    frame: int
    time_s: float
    square: Box
    maps: tuple[HeatMap, ...]
    trials: tuple[Trial, ...]
    model_version: str
    lips: LipFit | None = None

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
                    "random_gain": round(float(np.mean(m.faithfulness.random)), 4),
                    "beaten": m.faithfulness.beaten,
                    "masks": len(m.faithfulness.random),
                    "faithful": m.grid is not None and m.faithfulness.beaten == len(m.faithfulness.random),
                }
                for m in self.maps
            ],
            "trials": [asdict(trial) for trial in self.trials],
            "lips": None if self.lips is None else asdict(self.lips),
        }


def look_closer(path: Path, analyser: Analyser, face: int, *, progress: Progress = no_progress) -> Closeup:
    """Explain one face of a file and try how stable the verdict about it is.

    Args:
        analyser: with the torch engine; best the version that gave the verdict.
        progress: called with stage and share of the whole, 0..1; may raise to cancel.

    Raises:
        MediaError: the file cannot be decoded (any more).
        NotFoundError: no such face is found in it.
    """
    people = examine(
        path, analyser, progress=lambda stage, done: progress(stage, 0.2 * done), keep_pixels=True, keep_sound=True
    )
    person = next((person for person in people.judged if person.track.id == face), None)
    if person is None:
        raise NotFoundError(f"The file has no face {face}.")
    media, sightings = people.media, person.track.sightings
    index = largest(person.track)
    if media.samples is not None:
        progress("lips", 0.1)
    lips = fit_lips(path, analyser, person.track, media)
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
        maps=tuple(  # over the medium as it is shown, whose frames were turned
            m if m.grid is None else replace(m, grid=np.ascontiguousarray(np.rot90(m.grid, -media.turned)))
            for m in maps
        ),
        trials=trials,
        model_version=analyser.version,
        lips=lips,
    )


def largest(track: FaceTrack) -> int:
    """Which sighting has the largest box, the first of equals."""
    sides = [max(seen.face.box.width, seen.face.box.height) for seen in track.sightings]
    return sides.index(max(sides))


def square_in_medium(seen: Sighting, media: Media) -> Box:
    """The square that the networks see of a sighting, in pixels of the medium."""
    height, width = media.frames[seen.frame].pixels.shape[:2]
    return as_stored(crop_square(seen.face.box, width, height), media)


def to_png(grid: Floats) -> bytes:
    """A map (h, w) of 0..1 as 8-bit grey PNG of the same few pixels; the page enlarges it smoothly."""
    return cv2.imencode(".png", np.round(np.clip(grid, 0, 1) * 255).astype(np.uint8))[1].tobytes()


def reencode(pixels: Pixels, face: Face) -> tuple[Pixels, Face]:
    """The frame saved as JPEG of quality `JPEG_QUALITY` and read again."""
    return jpeg(pixels, JPEG_QUALITY), face


def rescale(pixels: Pixels, face: Face) -> tuple[Pixels, Face]:
    """The frame at half its size, the face with it."""
    height, width = (max(1, round(side * RESCALE)) for side in pixels.shape[:2])
    small = np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    across, down = width / pixels.shape[1], height / pixels.shape[0]
    b = face.box
    box = Box(b.x0 * across, b.y0 * down, b.x1 * across, b.y1 * down)
    factor = np.array([across, down], np.float32)
    return small, replace(face, box=box, landmarks=(face.landmarks * factor).astype(np.float32))


def shift(pixels: Pixels, face: Face) -> tuple[Pixels, Face]:
    """The same frame with the box moved by `SHIFT` of its size."""
    b = face.box
    right, down = b.width * SHIFT, b.height * SHIFT
    return pixels, replace(face, box=Box(b.x0 + right, b.y0 + down, b.x1 + right, b.y1 + down))


CHANGES: tuple[tuple[str, str, Change | None], ...] = (
    ("as_is", "As it is", None),
    ("jpeg", f"Saved again as JPEG of quality {JPEG_QUALITY}", reencode),
    ("half_size", "Scaled to half its size", rescale),
    ("shifted", f"Cut {SHIFT * 100:.0f} % further right and down", shift),
)
"""Code and title of each trial, and what it does to a frame."""


def try_changes(
    track: FaceTrack, media: Media, analyser: Analyser, progress: Progress = no_progress
) -> tuple[Trial, ...]:
    """Judge one person again under each change.

    Args:
        progress: called with the stage `stability` and the share that is done, 0..1; may raise to cancel.

    Returns:
        One trial per entry of `CHANGES`, first the medium as it is.
    """
    smallest = analyser.settings.media.min_face_px
    trials: list[Trial] = []
    for index, (code, title, change) in enumerate(CHANGES):
        progress("stability", index / len(CHANGES))
        verdict = judge(cut(media, [track], min_face_px=smallest, change=change), analyser).verdict
        if verdict.probability is None:
            raise ValueError("a face that was cut out always has a probability")
        before = trials[0].outcome if trials else verdict.outcome
        flipped = verdict.outcome is not before
        trials.append(Trial(code, title, verdict.outcome, verdict.probability, flipped))
    progress("stability", 1.0)
    return tuple(trials)
