"""Self-blended images: a fake made of one real face, so that only the traces of blending tell it from the original.

A copy of the face is changed a little (colour, sharpness, resolution, position) and blended back under a deformed,
softened mask. Generators never enter, so a network cannot learn one generator's fingerprint.

Source: the idea of Shiohara and Yamasaki 2022, "Detecting Deepfakes with Self-Blended Images"; this is our own
implementation on five landmarks and a template outline.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from utils.types import Floats, Pixels

TEMPLATE_MARKS = np.array(
    [[-0.5, 0.0], [0.5, 0.0], [0.0, 0.55], [-0.4, 1.05], [0.4, 1.05]], np.float32
)  # eyes, nose, corners of the mouth; unit: distance between the eyes, origin between them
TEMPLATE_HULL = np.array(
    [[-1.0, -0.35], [-0.55, -0.75], [0.0, -0.85], [0.55, -0.75], [1.0, -0.35], [1.02, 0.35], [0.85, 1.05],
     [0.5, 1.55], [0.0, 1.75], [-0.5, 1.55], [-0.85, 1.05], [-1.02, 0.35]], np.float32,
)  # fmt: skip
BLEND_RATIOS = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)


def face_hull(landmarks: Floats) -> Floats:
    """The outline of the face, (12, 2) pixels, from five landmarks by the similarity transform to a template.

    Raises:
        ValueError: the landmarks do not span a plane.
    """
    matrix, _ = cv2.estimateAffinePartial2D(TEMPLATE_MARKS, landmarks, method=cv2.LMEDS)
    if matrix is None or not abs(np.linalg.det(matrix[:, :2])) > 1e-6:
        raise ValueError("the landmarks do not span a plane")
    return np.asarray(TEMPLATE_HULL @ matrix[:, :2].T + matrix[:, 2], np.float32)


def blend_mask(shape: tuple[int, int], landmarks: Floats, rng: np.random.Generator) -> Floats:
    """A soft mask of the face, (H, W) float32 0..1: all of it or one half, deformed and blurred at random."""
    hull = face_hull(landmarks)
    centre = hull.mean(0)
    hull = centre + (hull - centre) * rng.uniform(0.75, 1.1, 2) + rng.normal(0, 0.03, hull.shape) * np.ptp(hull[:, 0])
    part = rng.random()
    if part < 0.15:
        hull[:, 1] = np.maximum(hull[:, 1], centre[1])
    elif part < 0.3:
        hull[:, 1] = np.minimum(hull[:, 1], centre[1])
    mask = np.zeros(shape, np.float32)
    cv2.fillConvexPoly(mask, cv2.convexHull(hull.astype(np.int32)), 1.0)
    mask = _elastic(mask, rng, strength=0.02 * shape[0])
    sigma = max(1.0, float(rng.uniform(0.01, 0.05)) * shape[0])
    soft = cv2.GaussianBlur(mask, (0, 0), sigma)
    soft = cv2.GaussianBlur((soft > rng.uniform(0.3, 0.7)).astype(np.float32), (0, 0), sigma)
    return np.asarray(soft * rng.choice(BLEND_RATIOS), np.float32)


def self_blend(
    pixels: Pixels, landmarks: Floats, rng: np.random.Generator, shape: np.random.Generator | None = None
) -> Pixels:
    """A self-blended fake of a real face.

    Args:
        pixels: (S, S, 3) uint8 RGB, a real face.
        shape: draws mask and position in its place; so a clip's colours can stay while its mask moves.

    Returns:
        (S, S, 3) uint8; outside the mask bit-equal to the input.

    Raises:
        ValueError: the landmarks do not span a plane.
    """
    shape = rng if shape is None else shape
    mask = blend_mask((pixels.shape[0], pixels.shape[1]), landmarks, shape)[..., None]
    # only the copy that goes inside is changed: a changed periphery alone would give the fake away
    inside = _small_affine(_mismatch(pixels.astype(np.float32), rng), shape)
    blended = mask * inside + (1 - mask) * pixels
    return np.where(mask > 0, np.rint(np.clip(blended, 0, 255)), pixels).astype(np.uint8)


def _mismatch(image: Floats, rng: np.random.Generator) -> Floats:
    """Colour, resolution and sharpness a little different from the original, each at random."""
    out = image
    if rng.random() < 0.7:
        out = np.asarray(out * rng.uniform(0.88, 1.12, 3) + rng.uniform(-12, 12, 3), np.float32)
    if rng.random() < 0.4:
        hsv = cv2.cvtColor(np.clip(out, 0, 255).astype(np.uint8), cv2.COLOR_RGB2HSV).astype(np.float32)
        hsv[..., 0] = (hsv[..., 0] + rng.uniform(-6, 6)) % 180
        hsv[..., 1] = np.clip(hsv[..., 1] * rng.uniform(0.8, 1.2), 0, 255)
        out = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB).astype(np.float32)
    side = image.shape[0]
    if rng.random() < 0.35:
        small = max(8, int(side * rng.uniform(0.3, 0.8)))
        out = cv2.resize(cv2.resize(out, (small, small), interpolation=cv2.INTER_AREA), (side, side))
    if rng.random() < 0.3:
        blurred = cv2.GaussianBlur(out, (0, 0), float(rng.uniform(0.5, 1.5)))
        out = blurred if rng.random() < 0.5 else out + (out - blurred) * rng.uniform(0.3, 1.0)
    return np.asarray(out, np.float32)


def _small_affine(image: Floats, rng: np.random.Generator) -> Floats:
    side = image.shape[0]
    matrix = cv2.getRotationMatrix2D(
        (side / 2, side / 2), float(rng.uniform(-1.5, 1.5)), float(rng.uniform(0.97, 1.03))
    )
    matrix[:, 2] += rng.uniform(-0.02, 0.02, 2) * side
    return np.asarray(cv2.warpAffine(image, matrix, (side, side), borderMode=cv2.BORDER_REFLECT), np.float32)


def _elastic(mask: Floats, rng: np.random.Generator, strength: float) -> Floats:
    height, width = mask.shape
    coarse: npt.NDArray[np.float32] = rng.normal(0, strength, (4, 4, 2)).astype(np.float32)
    shift = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    grid_x, grid_y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.asarray(cv2.remap(mask, grid_x + shift[..., 0], grid_y + shift[..., 1], cv2.INTER_LINEAR), np.float32)
