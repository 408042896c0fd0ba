"""Equal crops go through the networks once: a still picture as a video has the same face in every frame."""

from __future__ import annotations

from collections.abc import Sequence

from utils.types import Pixels


def distinct(crops: Sequence[Pixels]) -> tuple[list[Pixels], list[int]]:
    """The different ones among crops.

    Args:
        crops: (S, S, 3) uint8 each.

    Returns:
        Each different crop once, in order of appearance, and for every given crop its place among them.
    """
    known: dict[bytes, int] = {}
    first: list[Pixels] = []
    places = []
    for crop in crops:
        place = known.setdefault(crop.tobytes(), len(first))
        if place == len(first):
            first.append(crop)
        places.append(place)
    return first, places
