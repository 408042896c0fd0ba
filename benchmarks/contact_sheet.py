"""A contact sheet of self-blends, made of scikit-image's photo of an astronaut (public domain), for docs/training.md.

First row: the face and blends of it; then the mask of each; then frames of a blended clip, steady and unsteady.

    python -m benchmarks.contact_sheet [--out docs/images/self-blends.jpg]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from skimage.data import astronaut

from utils.faces.crops import PACK_PX, crop_face
from utils.faces.detector import CenterFaceDetector
from utils.training.blending import blend_mask, self_blend
from utils.types import Pixels

TILE, GAP, COLUMNS, QUALITY = 128, 4, 7, 82


def sheet(detector: CenterFaceDetector) -> Pixels:
    """The sheet, (H, W, 3) uint8."""
    photo = np.ascontiguousarray(astronaut())
    crop = crop_face(photo, max(detector.detect(photo), key=lambda face: face.score), size=PACK_PX)
    pixels, marks = crop.pixels, crop.landmarks
    seeds = range(1, COLUMNS)
    blends = [pixels, *(self_blend(pixels, marks, np.random.default_rng(seed)) for seed in seeds)]
    masks = [face_difference(pixels, pixels)]
    masks += [as_grey(blend_mask((PACK_PX, PACK_PX), marks, np.random.default_rng(seed))) for seed in seeds]
    changes = [face_difference(pixels, blend) for blend in blends]
    steady = [self_blend(pixels, marks, np.random.default_rng([8, 0])) for _ in range(COLUMNS)]
    unsteady = [self_blend(pixels, marks, np.random.default_rng([8, 1 + frame])) for frame in range(COLUMNS)]
    return np.concatenate([_row(tiles) for tiles in (blends, masks, changes, steady, unsteady)])


def face_difference(one: Pixels, two: Pixels) -> Pixels:
    """What a blend changed, four times as strong, on grey."""
    return np.clip(128 + 4 * (two.astype(int) - one), 0, 255).astype(np.uint8)


def as_grey(mask: np.ndarray) -> Pixels:
    return np.repeat((255 * mask).astype(np.uint8)[..., None], 3, axis=2)


def _row(tiles: list[Pixels]) -> Pixels:
    small = [cv2.resize(tile, (TILE, TILE), interpolation=cv2.INTER_AREA) for tile in tiles]
    framed = [cv2.copyMakeBorder(t, 0, GAP, 0, GAP, cv2.BORDER_CONSTANT, value=(255, 255, 255)) for t in small]
    return np.concatenate(framed, axis=1)


def main() -> int:
    """Write the sheet."""
    from utils.base_weights import FACE_FILE
    from utils.config import load_settings
    from utils.weights import weights_root

    parser = argparse.ArgumentParser(description="A contact sheet of self-blends of a free photo.")
    parser.add_argument("--out", type=Path, default=Path("docs/images/self-blends.jpg"))
    chosen = parser.parse_args()
    detector = CenterFaceDetector(weights_root(load_settings()) / "base" / FACE_FILE, threads=1)
    made = sheet(detector)
    if not cv2.imwrite(str(chosen.out), made[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY]):
        raise OSError(f"{chosen.out} could not be written")
    print(f"{chosen.out}: {made.shape[1]} x {made.shape[0]}, {chosen.out.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
