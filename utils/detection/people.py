"""The people of a medium as the networks take them: cut out of its frames, measured, and chosen.

Stands between the search for faces and the networks; `pipeline.py` has the whole way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from utils.faces.crops import FaceCrop, crop_for_networks, measure_quality
from utils.faces.judgeable import enlargement, why_not_judged
from utils.faces.tracking import thinned
from utils.media_types import Provenance
from utils.types import Face, FaceTrack, Floats, Media, Notice, Pixels, SpeechReport

FULL_PEOPLE = 8
"""So many people of a clip are judged by all their frames; ..."""
CROWD_FRAMES = 4
"""... and those beyond by so many, as few as the LSTM needs: a crowd shall not cost many times a few people."""

Change = Callable[[Pixels, Face], tuple[Pixels, Face]]
"""A frame and a face in it, to the frame as it is changed and where the face then is."""


@dataclass(frozen=True)
class Person:
    """Somebody cut out for the networks.

    Args:
        crops: one per sighting, in time order.
        quality: (T, Q) measurements of the crops, in the order of `QUALITY_NAMES`.
        obstacle: why this face cannot be judged; None where it can.
    """

    track: FaceTrack
    crops: tuple[FaceCrop, ...]
    quality: Floats
    obstacle: Notice | None = None


@dataclass(frozen=True)
class People:
    """A medium and the people in it: what stands between the decoder and the networks.

    Args:
        media: decoded; where nobody needs them any more, the pixels of its frames are forgotten.
        judged: those whom the networks are asked about, the largest face first.
        left_out: how many there are beside them who could be judged.
        speech: what the voice says; None where no sound was judged.
        provenance: what the file says of itself; None where nobody asked.
    """

    media: Media
    found: int
    judged: tuple[Person, ...]
    left_out: int = 0
    times_ms: Mapping[str, float] = field(default_factory=dict)
    speech: SpeechReport | None = None
    provenance: Provenance | None = None


def cut(
    media: Media,
    tracks: Sequence[FaceTrack],
    *,
    min_face_px: int,
    max_faces: int | None = None,
    change: Change | None = None,
) -> People:
    """Cut people out for the networks, and measure the crops.

    Args:
        tracks: of everybody, the largest face first.
        min_face_px: longer side of the smallest face that can be judged, pixels of the medium.
        max_faces: so many are judged at most, those first who can be; None for all.
        change: made to each frame before it is cut.
    """
    groups: tuple[list[Person], list[Person]] = ([], [])
    left_out = 0
    for place, track in enumerate(tracks):
        person = _cut_out(media, thinned(track, CROWD_FRAMES) if place >= FULL_PEOPLE else track, min_face_px, change)
        group = groups[person.obstacle is not None]
        if max_faces is None or len(group) < max_faces:
            group.append(person)
        else:
            left_out += person.obstacle is None
    judged = sorted((groups[0] + groups[1])[:max_faces], key=lambda person: person.track.id)
    return People(media, len(tracks), tuple(judged), left_out)


def _cut_out(media: Media, track: FaceTrack, min_face_px: int, change: Change | None) -> Person:
    seen = [(media.frames[sighting.frame].pixels, sighting.face) for sighting in track.sightings]
    crops = tuple(crop_for_networks(*(change(*one) if change else one)) for one in seen)
    quality = np.stack([measure_quality(crop.pixels, crop.source_px, crop.detector_score) for crop in crops])
    sizes = [(pixels.shape[1], pixels.shape[0]) for pixels, _ in seen]
    obstacle = why_not_judged(track, crops, sizes, larger=enlargement(media), min_face_px=min_face_px)
    return Person(track, crops, quality, obstacle)


def without_pixels(media: Media) -> Media:
    """A medium that takes no memory: whoever waits for the networks has no more use for whole frames."""
    nothing = np.zeros(1, np.uint8)
    blank = tuple(replace(f, pixels=np.broadcast_to(nothing, f.pixels.shape)) for f in media.frames)
    return replace(media, frames=blank)
