"""What a face and a frame look like, roughly: enough to notice a cut, and who is whom before and after it.

Called by `search.py`. A look is the aligned face in grey and the colours in and around it; of two people in the same
clip it differs far more than of one person who moves. It recognises nobody: another light or another camera is another
look. Measured on 98 clips of 3 to 12 s: across halves of one clip the best of nine pairs lies above .5 in 99 %, between
clips below .5 in 98 %.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from utils.faces.crops import crop_face
from utils.types import Face, Floats, Pixels

CROP_PX, FACE_PX, GRID = 64, 32, 8
ALIGNED = FACE_PX * np.array([[0.34, 0.46], [0.66, 0.46], [0.5, 0.64], [0.37, 0.82], [0.63, 0.82]], np.float32)
"""Where eyes, nose and corners of the mouth lie in the aligned face."""
COLOUR_WEIGHT = 0.02
THUMB = (64, 36)
CUT_DIFFERENCE, CUT_COLOURS = 15.0, 0.2
"""A cut differs from the frame before by more than these: mean of 255, and share of the colours. Moving people and
cameras exceed both in 1 % of clips, two clips in 98 %."""


class Look(NamedTuple):
    """A face's aligned grey values, normalised (N,), and its colours (GRID, GRID, 3) in CIELAB."""

    grey: Floats
    colours: Floats


class View(NamedTuple):
    """A whole frame: blurred, and how its colours are distributed."""

    small: Floats
    colours: Floats


def look_of(rgb: Pixels, face: Face) -> Look:
    """The look of a face in its frame."""
    crop = crop_face(rgb, face, size=CROP_PX)
    move, _ = cv2.estimateAffinePartial2D(crop.landmarks, ALIGNED)
    if move is None:  # landmarks that are no face's
        move = np.array([[FACE_PX / CROP_PX, 0, 0], [0, FACE_PX / CROP_PX, 0]])
    soft = cv2.GaussianBlur(cv2.cvtColor(crop.pixels, cv2.COLOR_RGB2GRAY), (0, 0), 1.5)
    grey = cv2.warpAffine(soft, move, (FACE_PX, FACE_PX)).astype(np.float32).ravel()
    grey -= grey.mean()
    colours = cv2.resize(cv2.cvtColor(crop.pixels, cv2.COLOR_RGB2LAB), (GRID, GRID), interpolation=cv2.INTER_AREA)
    return Look(grey / max(float(np.linalg.norm(grey)), 1e-6), colours.astype(np.float32))


def similarity(a: Look, b: Look) -> float:
    """How much alike two looks are: 1 for equal ones, about 0 for two people."""
    return float(a.grey @ b.grey - COLOUR_WEIGHT * np.abs(a.colours - b.colours).mean())


def view_of(rgb: Pixels) -> View:
    """A frame, for `is_cut`."""
    thumb = cv2.resize(rgb, THUMB, interpolation=cv2.INTER_AREA)
    counts = cv2.calcHist([thumb], [0, 1, 2], None, [4, 4, 4], [0, 256] * 3).ravel()
    return View(cv2.GaussianBlur(thumb, (0, 0), 2).astype(np.float32), counts / counts.sum())


def is_cut(before: View, after: View) -> bool:
    """Whether a frame belongs to another shot than the one before."""
    apart = float(np.abs(before.small - after.small).mean())
    return apart > CUT_DIFFERENCE and float(np.abs(before.colours - after.colours).sum()) / 2 > CUT_COLOURS
