"""A photo and a clip for the page tests, made from scikit-image's astronaut."""

from __future__ import annotations

import io
import math
from typing import Any

import av
import numpy as np
import skimage.data
from PIL import Image

from utils.types import Pixels

PICTURE_SIZE = (960, 512)
CLIP_SIZE = (480, 256)
CLIP_SECONDS = 4.0
FPS = 12


def pan(time_s: float) -> float:
    """How far the clip's picture has moved to the left at a time, pixels."""
    return 16.0 * math.sin(time_s * math.pi / 2)


def two_people() -> Pixels:
    """The astronaut beside her mirror image, (512, 960, 3); the faces are where `reports` says."""
    left = skimage.data.astronaut()
    right = left[:, ::-1][:, 64:]
    return np.hstack([left, right]).astype(np.uint8)


def make_photo(size: tuple[int, int] = PICTURE_SIZE) -> bytes:
    """A JPEG of two people in the given size, (width, height) pixels."""
    buffer = io.BytesIO()
    Image.fromarray(two_people()).resize(size).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def make_heatmap() -> bytes:
    """A grey PNG of 8 x 8 pixels, brightest in its middle."""
    ramp = 255 - 60 * np.abs(np.arange(8) - 4)
    grid = np.minimum.outer(ramp, ramp).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grid).save(buffer, "PNG")
    return buffer.getvalue()


def make_clip(container: str = "webm") -> bytes:
    """A clip of two people, panned as the boxes of `reports` are: WebM, or an AVI as cameras of 2005 wrote it."""
    codec, pixel_format = {"webm": ("libvpx", "yuv420p"), "avi": ("mjpeg", "yuvj420p")}[container]
    photo = Image.fromarray(two_people()).resize(CLIP_SIZE)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as sink:
        stream: Any = sink.add_stream(codec, rate=FPS)
        stream.width, stream.height = CLIP_SIZE
        stream.pix_fmt = pixel_format
        stream.bit_rate = 600_000
        for index in range(int(CLIP_SECONDS * FPS)):
            moved = np.roll(np.asarray(photo), -round(pan(index / FPS)), axis=1)
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(moved), format="rgb24")))
        sink.mux(stream.encode(None))
    return buffer.getvalue()
