"""Two people out of scikit-image: the astronaut, and a small grey face of Labeled Faces in the Wild, enlarged."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import skimage.data

from utils.types import Box, Face, Pixels

ASTRONAUT = Face(
    Box(181.5, 58.2, 269.9, 177.8),
    0.9,
    np.array([[203, 102], [247, 105], [223, 125], [203, 142], [241, 144]], np.float32),
)
OTHER = Face(
    Box(161, 107, 283, 249), 0.9, np.array([[195, 160], [250, 160], [222, 190], [200, 215], [245, 215]], np.float32)
)


def person() -> tuple[Pixels, Face]:
    """The astronaut, (512, 512, 3), and her face."""
    return np.asarray(skimage.data.astronaut(), np.uint8), ASTRONAUT


def other_person(number: int = 3) -> tuple[Pixels, Face]:
    """Somebody else before a grey-green wall, (512, 512, 3)."""
    faces = np.load(Path(skimage.data.__file__).parent / "lfw_subset.npy")
    large = cv2.resize((255 * faces[number]).astype(np.uint8), (160, 160), interpolation=cv2.INTER_CUBIC)
    picture = np.full((512, 512, 3), (90, 120, 100), np.uint8)
    picture[100:260, 150:310] = large[..., None]
    return picture, OTHER
