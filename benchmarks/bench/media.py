"""The pictures and clips of the benchmarks, all made from the public-domain portrait of the self-test."""

from __future__ import annotations

import io
from pathlib import Path

import av
import cv2
import numpy as np
from PIL import Image

from utils.detection.selftest import KNOWN_FOLDER
from utils.types import Pixels

PORTRAIT = KNOWN_FOLDER / "astronaut.png"


def portrait(side: int = 320) -> Pixels:
    """The portrait as a square of this side, pixels."""
    with Image.open(PORTRAIT) as image:
        return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), np.uint8)


def scene(width: int, height: int, number: int = 0) -> Pixels:
    """A soft background of noise with the portrait somewhere on it; another number gives another picture."""
    source = np.random.default_rng(number)
    coarse = source.integers(40, 216, (height // 40 + 1, width // 40 + 1, 3), np.uint8)
    pixels = np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8).copy()
    side = int(source.integers(height // 2, int(0.9 * height)))
    x, y = int(source.integers(0, width - side + 1)), int(source.integers(0, height - side + 1))
    pixels[y : y + side, x : x + side] = portrait(side)
    return pixels


def photo(width: int = 1280, height: int = 960, number: int = 0, quality: int = 90) -> bytes:
    """A JPEG of such a scene."""
    out = io.BytesIO()
    Image.fromarray(scene(width, height, number)).save(out, "JPEG", quality=quality)
    return out.getvalue()


def write_photos(folder: Path, count: int, width: int = 1280, height: int = 960) -> list[Path]:
    """So many different photos in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"photo-{number:04}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(photo(width, height, number))
    return paths


def write_clip(
    path: Path, *, seconds: float = 10.0, width: int = 1280, height: int = 720, fps: int = 30, moves: bool = True
) -> Path:
    """H.264 with the encoder's own choice of key and B frames: the portrait wanders and grows over grainy noise.

    Args:
        moves: False gives a still picture as a video.
    """
    source = np.random.default_rng(1)
    background = scene(width, height, 7).astype(np.int16)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("h264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(round(seconds * fps)):
            at = number / fps if moves else 0.0
            grain = source.integers(-6, 7, background.shape, np.int16) if moves else 0
            pixels = np.clip(background + grain, 0, 255).astype(np.uint8)
            side = int(height * (0.6 + 0.1 * np.sin(at)))
            x = int((width - side) * (0.5 + 0.4 * np.sin(0.7 * at)))
            y = int((height - side) * (0.5 + 0.4 * np.sin(1.1 * at)))
            pixels[y : y + side, x : x + side] = portrait(side)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                out.mux(packet)
        for packet in stream.encode():
            out.mux(packet)
    return path
