"""Crops of scikit-image's astronaut as a pack in memory: jittered in place, size and light, with landmarks."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from utils.faces.crops import PACK_PX
from utils.learning.packing import Pack, PackedCrop
from utils.types import Floats, Pixels

FACE_BOX = (181.5, 58.2, 269.9, 177.8)
LANDMARKS = np.array([[203.2, 101.7], [247.0, 104.5], [223.3, 125.1], [203.4, 142.3], [241.3, 144.4]], np.float32)


def jittered(rng: np.random.Generator) -> tuple[Pixels, tuple[float, float, float, float], Floats]:
    """A crop of the face as a pack holds it, its box and its landmarks, all pixels of the crop."""
    x0, y0, x1, y1 = FACE_BOX
    side = 1.3 * (y1 - y0) * rng.uniform(0.97, 1.06)
    centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2]) + rng.uniform(-5, 5, 2)
    factor = PACK_PX / side
    matrix = np.array([[factor, 0, PACK_PX / 2 - factor * centre[0]], [0, factor, PACK_PX / 2 - factor * centre[1]]])
    crop = cv2.warpAffine(astronaut(), matrix, (PACK_PX, PACK_PX), borderMode=cv2.BORDER_REFLECT)
    lit = crop * rng.uniform(0.7, 1.1, 3) + rng.uniform(-15, 15)
    box = tuple(float(v * factor + matrix[i % 2, 2]) for i, v in enumerate(FACE_BOX))
    marks = (LANDMARKS * factor + matrix[:, 2]).astype(np.float32)
    return np.clip(lit, 0, 255).astype(np.uint8), box, marks


@pytest.fixture(scope="session")
def make_pack() -> Callable[..., Pack]:
    """Makes a pack of pictures and clips; fakes are tinted, so that there is something to learn."""

    def make(pictures: int = 24, clips: int = 0, frames: int = 6, source: str = "shots", seed: int = 0) -> Pack:
        rng = np.random.default_rng(seed)
        pixels, rows = [], []

        def add(kind: str, item: int, frame: int, label: int, split: str, shared: np.random.Generator) -> None:
            crop, box, marks = jittered(shared)
            if label:
                crop = np.clip(crop * np.array([1.25, 0.8, 0.9]), 0, 255).astype(np.uint8)
            pixels.append(crop)
            rows.append(
                PackedCrop(
                    row=len(rows), file=f"{kind}-{item}", frame=frame, kind=kind, label=label,
                    source=source if kind == "image" else f"video:{source}", group=f"{kind}-group-{item}",
                    generator="tint" if label else "-", split=split, box=box,
                    landmarks=tuple((float(x), float(y)) for x, y in marks), source_px=100.0 + item,
                    detector_score=0.9, picture_px=200,
                )
            )  # fmt: skip

        splits = ("train", "train", "calib", "val")
        for item in range(pictures):
            add("image", item, 0, item % 2, splits[(item // 2) % 4], rng)
        for item in range(clips):
            for frame in range(frames):
                add("video", item, frame, item % 2, splits[(item // 2) % 4], np.random.default_rng([seed, item]))
        return Pack(np.stack(pixels), tuple(rows), ())

    return make
