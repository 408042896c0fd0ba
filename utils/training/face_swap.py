"""Swapped faces: a real face laid over another real person's, so that seams and mismatch tell it, and no generator.

A self-blend is one person's face twice; here two people are joined, as every face swap does, though more crudely. The
donor is looked for among people of the same source whose face is turned alike.

Source: the oldest of the blending ideas, Li et al. 2020, "Face X-ray for More General Face Forgery Detection".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from utils.training.blending import TEMPLATE_MARKS, aligned
from utils.training.crop_set import Pack, PackedCrop
from utils.training.views import DONATED, View, family, seeded
from utils.types import Floats

CANDIDATES = 48
"""Crops of other people that are looked at for each face, drawn at random; the one turned most alike is taken."""


def plan_swaps(pack: Pack, rows: Iterable[PackedCrop], per_source: int, *, seed: int, h264: float = 0.0) -> list[View]:
    """Two views of at most `per_source` real crops of each source: as it is, and with another person's face.

    Args:
        pack: where the crops are; half of the donors that have been redrawn give their redrawn face.
        rows: those to choose from; fakes are passed over.
        per_source: the many small sources of clips count as one.
        seed: of the draw and of each view.
        h264: see `views.plan_views`.
    """
    rng = np.random.default_rng(seed)
    of_family: dict[str, list[tuple[PackedCrop, Floats]]] = {}
    people: dict[str, list[tuple[PackedCrop, Floats]]] = {}  # who can give: of one source, so that it can be left out
    for row in rows:
        if not row.label and (shape := _shape(row)) is not None:
            of_family.setdefault(family(row.source), []).append((row, shape))
            people.setdefault(row.source, []).append((row, shape))
    views = []
    for source, own in sorted(of_family.items()):
        for number in rng.permutation(len(own))[:per_source]:
            row, shape = own[int(number)]
            donor = _donor(row, shape, people[row.source], rng)
            if donor is None:
                continue
            views.append(View(row.row, 0, source, "-", 0))
            drawn = donor.row in pack.redrawn and bool(rng.random() < 0.5)
            views.append(View(row.row, 1, source, "swapped", 0, redrawn=DONATED, donor=donor.row, donor_redrawn=drawn))
    return seeded(views, rng, seed, h264)


def face_shape(landmarks: Floats) -> Floats:
    """The landmarks without place, size and tilt, (10,): what is left is how the face is turned."""
    return np.asarray(aligned(landmarks, TEMPLATE_MARKS) - TEMPLATE_MARKS, np.float32).ravel()


def _shape(row: PackedCrop) -> Floats | None:
    """`face_shape` of a crop; None where its landmarks lie on one spot."""
    try:
        return face_shape(row.marks())
    except ValueError:
        return None


def _donor(
    row: PackedCrop, own: Floats, people: Sequence[tuple[PackedCrop, Floats]], rng: np.random.Generator
) -> PackedCrop | None:
    """Of some crops of other people, drawn at random, the one whose face is turned most alike; None if alone."""
    others = [(held, shape) for held, shape in people if held.group != row.group]
    if not others:
        return None
    drawn = [others[int(i)] for i in rng.integers(0, len(others), CANDIDATES)]
    return min(drawn, key=lambda pair: float(np.square(pair[1] - own).sum()))[0]
