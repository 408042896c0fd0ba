"""Make the self-test's known pair: a photograph that comes with scikit-image, and a self-blend of it.

    python -m benchmarks.known_pair data/selftest

The pictures are shipped, because scikit-image is only installed for development; this command is how they were made.
The photograph is NASA's portrait of Eileen Collins, in the public domain.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from utils.base_weights import FACE_FILE, file_sha256
from utils.config import load_settings
from utils.detection.selftest import KNOWN_PAIR, write_picture
from utils.errors import TelltaleError
from utils.faces.detector import CenterFaceDetector
from utils.learning.blending import self_blend
from utils.types import Floats, Pixels
from utils.weights import weights_root

CROP = (slice(0, 320), slice(64, 384))
BLEND_SEED = 2
"""Gives a blend of full strength over the whole face."""


def make_pair(photograph: Pixels, landmarks: Floats) -> tuple[Pixels, Pixels]:
    """The real and the fake picture, (320, 320, 3) uint8 each.

    Args:
        photograph: (512, 512, 3) uint8 RGB, `skimage.data.astronaut()`.
        landmarks: (5, 2) pixels in the cropped picture.
    """
    real = np.ascontiguousarray(photograph[CROP])
    return real, self_blend(real, landmarks, np.random.default_rng(BLEND_SEED))


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
