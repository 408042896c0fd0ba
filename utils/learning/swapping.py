"""Swapped faces: a real face laid over another real person's, so that seams and mismatch tell it, and no generator.

A self-blend is one person's face twice; here two people are joined, as every face swap does, though more crudely. The
donor is looked for among people of the same source whose face is turned alike.

Source: the oldest of the blending ideas, Li et al. 2020, "Face X-ray for More General Face Forgery Detection".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from utils.learning.blending import TEMPLATE_MARKS, aligned
from utils.learning.packing import Pack, PackedCrop
from utils.learning.views import DONATED, View, family, is_coded
from utils.types import Floats

CANDIDATES = 48
"""People that are looked at for each face, drawn at random; the one whose face is turned most alike is taken."""


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
    of_source: dict[str, list[PackedCrop]] = {}
    for row in rows:
        if not row.label:
            of_source.setdefault(family(row.source), []).append(row)
    views = []
    for source, own in sorted(of_source.items()):
        shapes = np.stack([face_shape(row.marks()) for row in own])
        for number in rng.permutation(len(own))[:per_source]:
            donor = _donor(own, shapes, int(number), rng)
            if donor is None:
                continue
            views.append(View(own[number].row, 0, source, "-", 0))
            drawn = donor.row in pack.redrawn and rng.random() < 0.5
            made = View(own[number].row, 1, source, "swapped", 0, redrawn=DONATED, donor=donor.row, donor_redrawn=drawn)
            views.append(made)
    seeded = [replace(views[int(j)], seed=seed * 1_000_003 + k) for k, j in enumerate(rng.permutation(len(views)))]
    return [replace(view, h264=is_coded(view.seed, h264)) for view in seeded]


def face_shape(landmarks: Floats) -> Floats:
    """The landmarks without place, size and tilt, (10,): what is left is how the face is turned."""
    return np.asarray(aligned(landmarks, TEMPLATE_MARKS) - TEMPLATE_MARKS, np.float32).ravel()


def _donor(own: Sequence[PackedCrop], shapes: Floats, number: int, rng: np.random.Generator) -> PackedCrop | None:
    """Of some people drawn at random the one whose face is turned most like that of crop `number`; None if alone."""
    drawn = rng.integers(0, len(own), CANDIDATES)
    others = [int(i) for i in drawn if own[int(i)].group != own[number].group]
    if not others:
        return None
    far = np.square(shapes[others] - shapes[number]).sum(1)
    return own[others[int(far.argmin())]]
