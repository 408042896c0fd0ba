"""What a probe may see that has nothing to do with the face: the rim of a view, its coding, sizes.

Each function gives a fixed number of features of one view. `leak_audit.py` asks whether labels can be told from them.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from utils.faces.crops import CROP_PX, CROP_SCALE, reframe_window
from utils.training.augment import draw_framing
from utils.training.blending import face_hull
from utils.training.crop_set import Pack
from utils.training.views import View
from utils.types import Floats, Pixels

Vector = npt.NDArray[np.float64]
RIM = 1.35
"""The rim is what lies outside the outline of the face, so many times enlarged: beyond most of a blend's soft edge."""
THUMB = 12
"""Side of the small picture of the rim that a probe sees."""


def face_outline(pack: Pack, view: View, size: int = CROP_PX) -> Floats:
    """The outline of the face in a rendered view, (12, 2) pixels of the view."""
    held = pack.rows[view.row]
    scale, flipped = (CROP_SCALE, False) if view.clean else draw_framing(np.random.default_rng(view.seed))
    x0, y0, side = reframe_window(pack.pixels.shape[1], held.face_box(), scale)
    outline = (face_hull(held.marks()) - np.array([x0, y0], np.float32)) * np.float32(size / side)
    if flipped:
        outline[:, 0] = size - 1 - outline[:, 0]
    return outline


def rim_mask(pack: Pack, view: View, size: int = CROP_PX) -> npt.NDArray[np.bool_]:
    """(S, S) where the rim is: everything outside the enlarged outline of the face."""
    outline = face_outline(pack, view, size)
    centre = outline.mean(0)
    mask = np.ones((size, size), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(centre + RIM * (outline - centre)).astype(np.int32)), 0)
    return mask.astype(bool)


def rim_features(pixels: Pixels, rim: npt.NDArray[np.bool_]) -> Vector:
    """A small picture of the rim with its mean in place of the face, and simple statistics of it.

    Args:
        pixels: (S, S, 3) uint8 view.
        rim: (S, S).
    """
    values = pixels.astype(np.float32)
    if not rim.any():
        return np.zeros(3 * THUMB**2 + 18)
    chosen = values[rim]
    mean = chosen.mean(0)
    hidden = np.where(rim[..., None], values, mean)
    thumb = cv2.resize(hidden, (THUMB, THUMB), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    inner = cv2.erode(rim.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    inner = inner if inner.any() else rim
    residual = np.abs(grey - cv2.GaussianBlur(grey, (0, 0), 1.0))[inner]
    edges = np.abs(cv2.Laplacian(grey, cv2.CV_32F))[inner]
    spread = chosen.max(1) - chosen.min(1)
    statistics = np.concatenate(
        [
            mean, chosen.std(0), np.percentile(chosen, [5, 50, 95], axis=0).ravel(),
            [np.log1p(residual.mean()), np.log1p(edges.mean()), spread.mean()],
        ]
    )  # fmt: skip
    return np.concatenate([thumb.ravel(), statistics]).astype(np.float64)


def size_features(source_px: float, picture_px: int) -> Vector:
    """The face and the shorter side of its picture in pixels, and their ratio."""
    sides = np.log([max(source_px, 1.0), max(picture_px, 1)])
    return np.concatenate([sides, [source_px / max(picture_px, 1)]])


def coding_features(pixels: Pixels, rim: npt.NDArray[np.bool_]) -> Vector:
    """What the rim of a view tells of its coding: steps at each of eight block phases, and the spread of its DCT.

    Args:
        pixels: (S, S, 3) uint8 view.
        rim: (S, S).
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    phases = []
    for axis in (0, 1):
        steps = np.abs(np.diff(grey, axis=axis))
        both = rim[1:] & rim[:-1] if axis == 0 else rim[:, 1:] & rim[:, :-1]
        lines = np.arange(steps.shape[axis]) % 8
        for phase in range(8):
            taken = np.take(steps, np.flatnonzero(lines == phase), axis)
            seen = np.take(both, np.flatnonzero(lines == phase), axis)
            phases.append(float(taken[seen].mean()) if seen.any() else 0.0)
    level = max(float(np.mean(phases)), 1e-3)
    blocks = [
        cv2.dct(grey[y : y + 8, x : x + 8] - 128)
        for y in range(0, grey.shape[0] - 7, 8)
        for x in range(0, grey.shape[1] - 7, 8)
        if rim[y : y + 8, x : x + 8].all()
    ]
    if not blocks:
        return np.concatenate([np.array(phases) / level, np.zeros(128)])
    stacked = np.abs(np.stack(blocks)).reshape(len(blocks), 64)
    flat = [np.log1p(stacked.mean(0)), (stacked < 1.0).mean(0)]
    return np.concatenate([np.array(phases) / level, *flat]).astype(np.float64)
