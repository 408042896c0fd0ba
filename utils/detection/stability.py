"""Does the verdict hold when the picture is changed in ways that change nothing for a person?

Every frame is re-encoded, rescaled or cut a little differently, and the person is judged again. A verdict that flips
under such a change rests on little; it is information for the reader and never alters the verdict itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from utils.detection import pipeline
from utils.detection.pipeline import Analyser, no_progress
from utils.faces.search import Progress
from utils.types import Box, Face, FaceTrack, Media, Outcome, Pixels

JPEG_QUALITY = 50
RESCALE = 0.5
SHIFT = 0.06
"""Share of the face box by which the cut is moved, to the right and down."""


@dataclass(frozen=True)
class Change:
    """One way to change a frame and where the face then is.

    Args:
        code: stable, for programs: `jpeg`, `half_size`, `shifted`.
        title: for people.
        apply: (pixels, face) to the changed pixels and the face in them; None leaves both.
    """

    code: str
    title: str
    apply: pipeline.Change | None


@dataclass(frozen=True)
class Trial:
    """What became of the verdict under one change; `flipped` when the outcome is another than without it."""

    code: str
    title: str
    outcome: Outcome
    probability: float
    flipped: bool


def reencode(pixels: Pixels, face: Face) -> tuple[Pixels, Face]:
    """The frame saved as JPEG of quality `JPEG_QUALITY` and read again."""
    done, packed = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise ValueError("the frame could not be encoded as JPEG")
    read = cv2.imdecode(packed, cv2.IMREAD_COLOR)
    if read is None:
        raise ValueError("the frame could not be read again")
    return np.ascontiguousarray(np.asarray(read)[:, :, ::-1], dtype=np.uint8), face


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


CHANGES = (
    Change("jpeg", f"Saved again as JPEG of quality {JPEG_QUALITY}", reencode),
    Change("half_size", "Scaled to half its size", rescale),
    Change("shifted", f"Cut {SHIFT * 100:.0f} % further right and down", shift),
)


def try_changes(
    track: FaceTrack, media: Media, analyser: Analyser, progress: Progress = no_progress
) -> tuple[Trial, ...]:
    """Judge one person again under each change.

    Args:
        track: the person, as found in `media`.
        media: the decoded medium.
        analyser: the one whose verdict is tried.
        progress: called with the stage `stability` and the share that is done, 0..1; may raise to cancel.

    Returns:
        First the medium as it is (`as_is`), then one trial per entry of `CHANGES`.
    """
    variants = [Change("as_is", "As it is", None), *CHANGES]
    trials: list[Trial] = []
    for index, change in enumerate(variants):
        progress("stability", index / len(variants))
        verdict = pipeline.judge(pipeline.cut(media, [track], change=change.apply), analyser).verdict
        if verdict.probability is None:
            raise ValueError("a face that was cut out always has a probability")
        before = trials[0].outcome if trials else verdict.outcome
        flipped = verdict.outcome is not before
        trials.append(Trial(change.code, change.title, verdict.outcome, verdict.probability, flipped))
    progress("stability", 1.0)
    return tuple(trials)
