"""A perceptual hash: pictures that look the same get hashes that differ in few bits, also after re-encoding."""

from __future__ import annotations

import cv2
import numpy as np

from utils.types import Pixels

SIDE, KEPT = 32, 8


def perceptual_hash(pixels: Pixels) -> int:
    """64 bits of a picture's coarse structure.

    The picture is shrunk to 32 x 32 grey levels; of its cosine transform the 8 x 8 slowest waves are compared with
    their median. A picture without any structure gives 0.

    Source: Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions" (pHash).
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    waves = np.asarray(cv2.dct(small))[:KEPT, :KEPT].ravel().round(1)
    above = waves > np.median(waves[1:])  # the first is the mean brightness, which says nothing of structure
    above[0] = False
    return int("".join("1" if bit else "0" for bit in above), 2)
