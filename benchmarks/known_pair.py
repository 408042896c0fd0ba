"""Make the self-test's known pair: a photograph that comes with scikit-image, and a self-blend of it by fixed numbers.

    python -m benchmarks.known_pair data/selftest

The pictures are shipped, because scikit-image is only installed for development; this command is how they were made.
The photograph is NASA's portrait of Eileen Collins, in the public domain.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from utils.base_weights import FACE_FILE, file_sha256
from utils.config import load_settings
from utils.detection.selftest import KNOWN_PAIR, write_picture
from utils.errors import TelltaleError
from utils.faces.detector import CenterFaceDetector
from utils.training.blending import blend_mask
from utils.types import Floats, Pixels
from utils.weights import weights_root

CROP = (slice(0, 320), slice(64, 384))
MASK_SEED = 2
"""Gives a mask over the whole face at three quarters of full strength."""
GAIN, OFFSET = (0.9070, 0.8848, 1.0799), (-9.614, -1.186, -0.276)
SHARPEN, SHARPEN_SIGMA = 0.702, 1.437
TURN_DEG, SCALE, SHIFT_PX = 0.352, 1.0004, (5.949, -3.499)
"""What is done to the copy inside the mask; training draws such numbers at random (`utils.training.blending`)."""


def make_pair(photograph: Pixels, landmarks: Floats) -> tuple[Pixels, Pixels]:
    """The real and the fake picture, (320, 320, 3) uint8 each.

    Args:
        photograph: (512, 512, 3) uint8 RGB, `skimage.data.astronaut()`.
        landmarks: (5, 2) pixels in the cropped picture.
    """
    real = np.ascontiguousarray(photograph[CROP])
    side = real.shape[0]
    mask = blend_mask((side, side), landmarks, np.random.default_rng(MASK_SEED))[..., None]
    copy = real * np.float32(GAIN) + np.float32(OFFSET)
    copy += SHARPEN * (copy - cv2.GaussianBlur(copy, (0, 0), SHARPEN_SIGMA))
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), TURN_DEG, SCALE)
    matrix[:, 2] += SHIFT_PX
    copy = cv2.warpAffine(copy, matrix, (side, side), borderMode=cv2.BORDER_REFLECT)
    blended = mask * copy + (1 - mask) * real
    return real, np.where(mask > 0, np.rint(np.clip(blended, 0, 255)), real).astype(np.uint8)


def main() -> int:
    """Entry point of the command: writes both pictures and prints their sha256."""
    from skimage.data import astronaut

    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "data/selftest")
    detector = CenterFaceDetector(weights_root(load_settings()) / "base" / FACE_FILE, threads=1)
    photograph: Pixels = astronaut()  # type: ignore[no-untyped-call]
    faces = detector.detect(np.ascontiguousarray(photograph[CROP]))
    if not faces:
        raise TelltaleError("No face was found in the photograph.")
    folder.mkdir(parents=True, exist_ok=True)
    for picture, pixels in zip(
        KNOWN_PAIR, make_pair(photograph, np.array(faces[0].landmarks, np.float32)), strict=True
    ):
        write_picture(folder / picture.file, pixels)
        print(file_sha256(folder / picture.file), picture.file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
