"""Follow each person through the frames of a video, by overlap of the boxes and, where frames are far apart, position.

Greedy and deterministic: each frame's faces are matched to the tracks by how well box and size agree with the track's
last sighting. Frames taken uniformly from a clip can lie seconds apart, so a face may move by about its own width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from utils.types import Box, Face, FaceTrack, Sighting

MAX_SHIFT = 1.0
"""A face may move by this many of its own widths between two sightings."""
MAX_GROWTH = 1.8
"""... and grow or shrink by this factor."""
MIN_SHARE = 0.2
"""A track that is seen in a smaller share of the frames is mostly a false detection."""


def match_cost(a: Box, b: Box) -> float:
    """Shift of the centre in box widths plus log ratio of the sizes; infinite where it cannot be the same face."""
    size_a, size_b = max(a.width, a.height), max(b.width, b.height)
    shift = float(np.hypot(a.centre[0] - b.centre[0], a.centre[1] - b.centre[1])) / max(size_a, size_b)
    growth = max(size_a, size_b) / min(size_a, size_b)
    if shift > MAX_SHIFT or growth > MAX_GROWTH:
        return float("inf")
    return shift + float(np.log(growth))


def track_faces(faces_per_frame: Sequence[Sequence[Face]], *, min_share: float = MIN_SHARE) -> tuple[FaceTrack, ...]:
    """Join the faces of the frames to tracks, the most prominent person (area summed over time) first.

    Args:
        faces_per_frame: the faces of frame 0, 1, ..., each as the detector gives them.
        min_share: tracks seen in a smaller share of the frames are dropped, unless no other is left: a face that
            appears in one frame of sixteen is mostly a false detection.

    Returns:
        Tracks with ids from 0.
    """
    open_tracks: list[list[Sighting]] = []
    for index, faces in enumerate(faces_per_frame):
        pairs = sorted(
            (match_cost(track[-1].face.box, face.box), t, f)
            for t, track in enumerate(open_tracks)
            for f, face in enumerate(faces)
        )
        used_tracks: set[int] = set()
        used_faces: set[int] = set()
        for distance, t, f in pairs:
            if not np.isfinite(distance):
                break
            if t not in used_tracks and f not in used_faces:
                open_tracks[t].append(Sighting(index, faces[f]))
                used_tracks.add(t)
                used_faces.add(f)
        open_tracks += [[Sighting(index, face)] for f, face in enumerate(faces) if f not in used_faces]
    steady = [t for t in open_tracks if len(t) >= min_share * len(faces_per_frame)]
    kept = sorted(steady or open_tracks, key=_prominence, reverse=True)
    return tuple(FaceTrack(i, tuple(track)) for i, track in enumerate(kept))


def _prominence(track: Sequence[Sighting]) -> float:
    return sum(s.face.box.width * s.face.box.height for s in track)
