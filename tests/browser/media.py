"""A photo and a clip for the page tests, made from scikit-image's astronaut."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np
import skimage.data
from PIL import Image

from tests.browser.canned_reports import CLIP_SECONDS, CLIP_SIZE, PICTURE_SIZE, pan
from utils.types import Pixels

FPS = 12


def two_people() -> Pixels:
    """The astronaut beside her mirror image, (512, 960, 3); the faces are where the canned reports say."""
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


def make_clip() -> bytes:
    """A WebM clip of two people, panned as the canned report's boxes are."""
    photo = Image.fromarray(two_people()).resize(CLIP_SIZE)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="webm") as container:
        stream: Any = container.add_stream("libvpx", rate=FPS)
        stream.width, stream.height = CLIP_SIZE
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 600_000
        for index in range(int(CLIP_SECONDS * FPS)):
            moved = np.roll(np.asarray(photo), -round(pan(index / FPS)), axis=1)
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(moved), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return buffer.getvalue()
