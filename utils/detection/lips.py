"""Do the lips fit the voice? How far a mouth opens, and how fast it moves, beside how loud the sound is.

Of a clip with sound up to `WINDOWS` parts are looked at in which the person is seen and somebody speaks, frame by
frame. A face mesh gives the opening of the lips; Pearson's correlation with the loudness is taken for opening and
movement and averaged over the parts, at each lag up to `MOST_LAG` frames; the highest counts. What belongs together
correlates more than sound of another clip does, which `python -m benchmarks.lips` measures: the bounds are from there.
It is evidence for the reader and never alters a verdict: a voice from off camera does not fit either.

Source: Kartynnik et al. 2019, "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs" (the mesh);
Chung and Zisserman 2016, "Out of time: automated lip sync in the wild" (a lag that is searched over).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from utils.base_weights import MESH_FILE, PINNED, require_file
from utils.detection.moments import Flags
from utils.detection.pipeline import Analyser
from utils.detection.processor import compile_graph
from utils.errors import MediaError, WeightsError
from utils.faces.judgeable import turn_upright
from utils.media import decode_media
from utils.metrics import sigmoid
from utils.speech.judge import CHUNK
from utils.speech.spectrogram import HOP, RATE, log_mel
from utils.types import Face, FaceTrack, Floats, Frame, Media, Pixels
from utils.weights import weights_root

PER_SECOND = 25
"""Values a second that are compared."""
WINDOW_S, LEAST_WINDOW_S, WINDOWS = 3.0, 2.5, 3
MOST_LAG = 5
"""Of `PER_SECOND`: .2 s, more than what people notice."""
LEAST_SPEECH, LEAST_SEEN, LEAST_FPS = 0.5, 0.8, 12
"""Share of a part that is speech, share of its frames with the mouth, and frames a second in it."""
LEAST_PX = 48
"""Longer side of the smallest face whose mouth is looked at, pixels of the frames."""
FITS = (0.44, 0.32, 0.27)
"""Correlation from which lips and voice belong together, by the number of parts."""
MISFITS = (-1.0, 0.15, 0.15)
"""Correlation below which they do not; one part is too little to say so."""

MESH_PX, AROUND, LEAST_PRESENCE = 192, 1.5, 0.5
EYES = (33, 263)
"""Outer corners; numbers of points of the mesh, as in MediaPipe."""
LIPS = ((13, 14), (82, 87), (312, 317))
"""Points of the inner upper lip and those below them."""
LOW_BANDS = 48
"""Of the spectrogram's bands: up to 2.8 kHz, where vowels are."""


@dataclass(frozen=True)
class LipFit:
    """Whether lips and voice belong together.

    `code` is stable, for programs: `fits`, `does_not_fit`, `undecided` or `not_measured`. `text` says it in a sentence.

    Args:
        correlation: -1..1, the highest over the lags; None where nothing was measured.
        lag_s: how much later the lips move than the sound, seconds.
        spans: first and last second of the parts that were compared.
    """

    code: str
    text: str
    correlation: float | None = None
    lag_s: float | None = None
    spans: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class _Region:
    """A square of a frame, turned so that the eyes are level: centre (x, y), side in pixels, angle in radians."""

    centre: Floats
    side: float
    angle: float


class FaceMesh:
    """Places 468 points on a face.

    Raises:
        WeightsError: its file is not there or has other bytes.
    """

    def __init__(self, base: Path, *, threads: int = 0) -> None:
        (pinned,) = (pinned for pinned in PINNED if pinned.saved_as == MESH_FILE)
        path = require_file(base / MESH_FILE, pinned.member_sha256)
        self._request = compile_graph(path, precision="fp32", threads=threads)

    def place(self, pixels: Pixels, region: _Region) -> tuple[Floats, Floats, float]:
        """The points of the face in a region of a frame (H, W, 3).

        Returns:
            (468, 3) in pixels of the region at 192 x 192, the third towards the camera; (468, 2) in pixels of the
            frame; and how surely there is a face, 0..1.
        """
        across = region.side / 2 * np.array([np.cos(region.angle), np.sin(region.angle)])
        down = across[::-1] * (-1, 1)
        corner = region.centre - across - down
        corners = np.stack([corner, corner + 2 * across, corner + 2 * down])
        target = np.array([[0, 0], [MESH_PX, 0], [0, MESH_PX]], np.float32)
        into = cv2.getAffineTransform(corners.astype(np.float32), target)
        crop = cv2.warpAffine(pixels, into, (MESH_PX, MESH_PX), flags=cv2.INTER_AREA)
        self._request.infer({0: crop[None].astype(np.float32) / 255})
        answer, presence = (np.array(output.data) for output in self._request.output_tensors)
        points = answer.reshape(-1, 3)
        back = cv2.invertAffineTransform(into)
        return points, points[:, :2] @ back[:, :2].T + back[:, 2], sigmoid(float(presence.item()))


@dataclass(frozen=True)
class Watched:
    """A person's mouth in parts of a clip: how far it is open, (n,) in distances of the eyes and NaN where it is not
    seen, and when, seconds from the first frame."""

    times_s: Floats
    openings: Floats
    spans: tuple[tuple[float, float], ...]


def fit_lips(path: Path, analyser: Analyser, track: FaceTrack, media: Media) -> LipFit | None:
    """Compare a person's lips with the sound of a clip.

    Args:
        track: the person in the frames of `media`.
        media: the clip as it was examined, with its samples.

    Returns:
        None where there is no sound or nothing to hear it with.
    """
    if media.samples is None or analyser.speech is None:
        return None
    watched = watch_mouth(path, analyser, track, media, analyser.speech.spoken(media.samples))
    return watched if isinstance(watched, LipFit) else interpret(watched.spans, correlations(watched, media.samples))


def watch_mouth(path: Path, analyser: Analyser, track: FaceTrack, media: Media, spoken: Flags) -> Watched | LipFit:
    """Decode the best parts of a clip and follow a person's mouth through them; or why that cannot be done.

    Args:
        spoken: whether somebody speaks, for each chunk of the sound; others as of `fit_lips`.
    """
    settings = analyser.settings
    try:
        mesh = FaceMesh(weights_root(settings) / "base", threads=settings.detection.threads)
    except WeightsError as error:
        return LipFit("not_measured", str(error))
    seen_s = [media.frames[sighting.frame].time_s for sighting in track.sightings]
    spacing_s = float(np.median(np.diff([frame.time_s for frame in media.frames]))) if len(media.frames) > 1 else 0.0
    spans = choose_spans(spoken, media.info.duration_s or 0.0, seen_s, spacing_s)
    if not spans:
        wanted = f"There are no {LEAST_WINDOW_S:g} s in which the person is seen and speech is heard."
        return LipFit("not_measured", wanted)
    try:
        part = decode_media(path, settings.media, settings.sandbox, analyser.decoders, spans=spans)
    except MediaError as error:
        return LipFit("not_measured", str(error))
    part = turn_upright(part, media.turned) if media.turned else part
    shrink = part.frames[0].pixels.shape[1] / media.frames[0].pixels.shape[1]
    faces = [(t, sighting.face) for t, sighting in zip(seen_s, track.sightings, strict=True)]
    if max(max(face.box.width, face.box.height) for _, face in faces) * shrink < LEAST_PX:
        return LipFit("not_measured", "The face is too small for its lips to be read.")
    openings = follow_mouth(part.frames, faces, shrink, mesh, spacing_s)
    return Watched(np.array([frame.time_s for frame in part.frames], np.float32), openings, spans)


def choose_spans(
    spoken: Flags, duration_s: float, seen_s: Sequence[float], spacing_s: float
) -> tuple[tuple[float, float], ...]:
    """The parts of a clip with the most speech in which a person is seen throughout, in order.

    Args:
        spoken: for each chunk of the sound.
        seen_s: when the person was seen, of frames that are `spacing_s` apart.
    """
    length = min(WINDOW_S, duration_s)
    if length < LEAST_WINDOW_S:
        return ()
    found: list[tuple[float, float, float]] = []
    for start in np.arange(0, duration_s - length + 1e-6, 1.0):
        times = np.arange(start, start + length, 0.1)
        away = np.abs(times[:, None] - np.array(seen_s)).min(1)
        heard = spoken[round(start * RATE / CHUNK) : round((start + length) * RATE / CHUNK)]
        share = round(float(heard.sum()) * CHUNK / RATE / length, 1)
        if share >= LEAST_SPEECH and away.max() <= spacing_s:
            found.append((-share, float(start), float(start + length)))
    chosen: list[tuple[float, float]] = []
    for _, first, last in sorted(found):
        if len(chosen) < WINDOWS and all(last <= other or first >= end for other, end in chosen):
            chosen.append((first, last))
    return tuple(sorted(chosen))


def follow_mouth(
    frames: Sequence[Frame], faces: Sequence[tuple[float, Face]], scale: float, mesh: FaceMesh, spacing_s: float
) -> Floats:
    """How far the lips are apart in each frame, in distances of the eyes; NaN where the face is not seen.

    Args:
        faces: when and which, of each sighting of the person.
        scale: pixels of these frames per pixel of those that the faces were found in.
        spacing_s: a face is looked for where it was seen at most so long before or after.
    """
    out = np.full(len(frames), np.nan, np.float32)
    region: _Region | None = None
    for index, frame in enumerate(frames):
        away_s, near = min(((abs(t - frame.time_s), face) for t, face in faces), key=lambda pair: pair[0])
        around = _around(near, scale)
        if region is None or float(np.abs(region.centre - around.centre).max()) > around.side / 2:
            if away_s > spacing_s:
                continue
            region = _next_region(mesh.place(frame.pixels, around)[1])
        points, in_frame, presence = mesh.place(frame.pixels, region)
        region = _next_region(in_frame) if presence >= LEAST_PRESENCE else None
        if region is not None:
            apart = np.mean([np.linalg.norm(points[upper] - points[lower]) for upper, lower in LIPS])
            out[index] = apart / np.linalg.norm(points[EYES[0]] - points[EYES[1]])
    return out


def _around(face: Face, scale: float) -> _Region:
    """Where to look for a face that was seen nearby."""
    box = face.box.scaled(scale)
    right, down = face.landmarks[1] - face.landmarks[0]
    side = AROUND * max(box.width, box.height)
    return _Region(np.asarray(box.centre, np.float32), side, float(np.arctan2(down, right)))


def _next_region(points: Floats) -> _Region:
    """Where to look in the next frame, by the points in this one."""
    low, high = points.min(0), points.max(0)
    right, down = points[EYES[1]] - points[EYES[0]]
    return _Region((low + high) / 2, AROUND * float((high - low).max()), float(np.arctan2(down, right)))


def loudness(samples: Floats) -> Floats:
    """How loud each frame of 10 ms is: the geometric mean of the amplitude over the lower bands, over 40 ms."""
    level = log_mel(samples)[:, :LOW_BANDS].mean(1)
    smooth = np.convolve(np.pad(level, (2, 1), mode="edge"), np.full(4, 0.25), "valid")
    return np.asarray(np.exp(smooth / 2), np.float32)


def correlations(watched: Watched, samples: Floats) -> Floats:
    """Correlation of lips and loudness in each part, (parts, lags), at each lag from -`MOST_LAG` on; NaN where the
    mouth is not seen well enough.

    Args:
        samples: of the sound from the first frame on, 16 kHz.
    """
    loud, out = loudness(samples), np.full((len(watched.spans), 2 * MOST_LAG + 1), np.nan)
    heard_s = (np.arange(len(loud)) + 0.5) * HOP / RATE
    for part, (first, last) in enumerate(watched.spans):
        inside = (watched.times_s >= first) & (watched.times_s <= last)
        seen = inside & np.isfinite(watched.openings)
        if seen.sum() < max(LEAST_SEEN * inside.sum(), LEAST_FPS * (last - first)):
            continue
        when = watched.times_s[seen]
        grid = np.arange(when[0], min(when[-1], heard_s[-1]), 1 / PER_SECOND)
        if len(grid) >= LEAST_SEEN * LEAST_WINDOW_S * PER_SECOND:
            opening, sound = np.interp(grid, when, watched.openings[seen]), np.interp(grid, heard_s, loud)
            out[part] = _curve(opening.astype(np.float32), sound.astype(np.float32))
    return out


def _curve(opening: Floats, sound: Floats) -> Floats:
    """The mean of the correlations of opening and movement with the loudness, at each lag."""
    speed = np.abs(np.gradient(opening))
    movement = np.convolve(np.pad(speed, 2, mode="edge"), np.full(5, 0.2), "valid")
    out = []
    for lag in range(-MOST_LAG, MOST_LAG + 1):
        late, early = slice(max(0, lag), len(sound) + min(0, lag)), slice(max(0, -lag), len(sound) - max(0, lag))
        out.append(np.mean([_correlation(seen[late], sound[early]) for seen in (opening, movement)]))
    return np.array(out)


def _correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum() + 1e-12))


def interpret(spans: Sequence[tuple[float, float]], found: Floats) -> LipFit:
    """What the correlations in some parts say."""
    usable = [bool(np.isfinite(curve).all()) for curve in found]
    if not any(usable):
        return LipFit("not_measured", "The mouth is not seen well enough while speech is heard.")
    mean = found[usable].mean(0)
    highest, parts = float(mean.max()), min(sum(usable), WINDOWS) - 1
    if highest >= FITS[parts]:
        code, text = "fits", "The mouth moves with the voice."
    elif highest < MISFITS[parts]:
        code = "does_not_fit"
        text = "The mouth does not move with the voice: somebody else speaks, or the voice or the lips were replaced."
    else:
        code, text = "undecided", "Whether the mouth moves with the voice cannot be told from these parts."
    lag_s = (int(mean.argmax()) - MOST_LAG) / PER_SECOND
    compared = tuple(span for span, counts in zip(spans, usable, strict=True) if counts)
    return LipFit(code, text, round(highest, 3), lag_s, compared)
