"""How far may a converted network be from torch? The measure, and crops that ship to measure it on any machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from utils.errors import TelltaleError
from utils.faces.crops import CROP_PX, crop_face, measure_quality, resize
from utils.faces.detector import FaceDetector
from utils.types import Floats, Pixels

TOLERANCE = 0.02
"""Probabilities may differ by so much at the 99th percentile."""
CROPS_PER_PICTURE = 24
PICTURES = ("astronaut.png", "astronaut_blended.png")
FOLDER = Path(__file__).resolve().parent.parent.parent / "data" / "selftest"


def difference(reference: Floats, found: Floats) -> float:
    """99th percentile of the distance between two sets of probabilities, from their logits (N,); NaN counts as 1."""
    if len(reference) == 0:
        return 0.0
    apart = np.abs(_sigmoid(reference) - _sigmoid(found))
    return float(np.quantile(np.nan_to_num(apart, nan=1.0), 0.99, method="higher"))


def parity_crops(detector: FaceDetector, folder: Path = FOLDER) -> tuple[Pixels, Floats]:
    """Crops of the pictures that ship, changed as pictures on the way through the world are; the same at each call.

    Args:
        detector: finds the face in each picture.
        folder: with `PICTURES`.

    Returns:
        (N, 224, 224, 3) uint8 crops, those of one picture in a row, and (N, Q) measurements of them.

    Raises:
        TelltaleError: a picture is missing, or no face is found in it.
    """
    rng = np.random.default_rng(224)
    crops = [crop for name in PICTURES for crop in _variants(folder / name, detector, rng)]
    quality = [measure_quality(crop, float(rng.uniform(50, 400)), 0.9) for crop in crops]
    return np.stack(crops), np.stack(quality)


def _variants(path: Path, detector: FaceDetector, rng: np.random.Generator) -> Iterator[Pixels]:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    faces = () if picture is None else detector.detect(np.ascontiguousarray(picture[..., ::-1]))
    if picture is None or not faces:
        raise TelltaleError(f"{path.name} cannot be read, or no face is found in it.")
    rgb = np.ascontiguousarray(picture[..., ::-1])
    face = max(faces, key=lambda found: found.box.width)
    for index in range(CROPS_PER_PICTURE):
        crop = crop_face(rgb, face, scale=1.3 if index == 0 else float(rng.uniform(1.0, 1.5))).pixels
        yield crop if index == 0 else _changed(crop, rng)


def _changed(crop: Pixels, rng: np.random.Generator) -> Pixels:
    """One crop mirrored, in another light, at another sharpness, and saved as JPEG, each at random."""
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    light = (crop / 255.0) ** rng.uniform(0.6, 1.6) * rng.uniform(0.7, 1.15, 3) + rng.uniform(-0.05, 0.05)
    light += rng.normal(0, rng.uniform(0, 0.03), crop.shape)
    crop = np.clip(light * 255, 0, 255).astype(np.uint8)
    crop = resize(resize(crop, int(rng.integers(64, CROP_PX))), CROP_PX)
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 96))]
    _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(crop[..., ::-1]), quality)
    decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(decoded[..., ::-1])


def _sigmoid(logits: Floats) -> npt.NDArray[np.float64]:
    out: npt.NDArray[np.float64] = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return out
