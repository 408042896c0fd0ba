"""Augmentation that treats real and fake alike: framing, flip, re-encoding, rescaling, blur, noise, light, H.264.

Works on the packed crops (uint8) with a generator that the caller owns; nothing here ever sees the label.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import av
import cv2
import numpy as np

from utils.faces.crops import CROP_PX, jpeg, reframe, resize
from utils.types import Box, Pixels

MIN_SCALE, MAX_SCALE = 1.0, 1.3
"""Side of the training square relative to the face box; the product cuts at 1.3 and tight pictures allow only 1.0."""
MIN_CRF, MAX_CRF = 18, 40
"""Constant rate factors that are drawn: 18 is nearly the original, 40 a bad video call."""
PRESETS = ("ultrafast", "veryfast")
"""Coders with and without deblocking; a crop takes about 3 ms with either."""
RATE = 25


def degrade(pixels: Pixels, rng: np.random.Generator, *, as_jpeg: bool = True) -> Pixels:
    """What happens to pictures on their way: rescaling, blur, noise, light and JPEG 40 to 100, each at random.

    Without `as_jpeg` the last is left out.
    """
    side = pixels.shape[0]
    if rng.random() < 0.3:
        smaller = int(side * rng.uniform(0.4, 0.95))
        method = int(rng.choice([cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC]))
        pixels = resize(np.asarray(cv2.resize(pixels, (smaller, smaller), interpolation=method), np.uint8), side)
    if rng.random() < 0.2:
        pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), float(rng.uniform(0.4, 1.5))), np.uint8)
    if rng.random() < 0.3:
        gain, bias = rng.uniform(0.8, 1.25), rng.uniform(-20, 20)
        tint = rng.uniform(0.95, 1.05, 3)
        pixels = np.clip(pixels * (gain * tint) + bias, 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        noise = rng.normal(0, rng.uniform(1, 6), pixels.shape)
        pixels = np.clip(pixels + noise, 0, 255).astype(np.uint8)
    if as_jpeg and rng.random() < 0.6:
        pixels = jpeg(pixels, int(rng.integers(40, 101)))
    return pixels


def draw_framing(rng: np.random.Generator) -> tuple[float, bool]:
    """The first things that `augment` draws: side of the square relative to the face box, and whether it is flipped."""
    return float(rng.uniform(MIN_SCALE, MAX_SCALE)), bool(rng.random() < 0.5)


def augment(pixels: Pixels, box: Box, rng: np.random.Generator, *, size: int = CROP_PX, as_jpeg: bool = True) -> Pixels:
    """One training view of a packed crop.

    Returns:
        (size, size, 3) uint8.
    """
    scale, flipped = draw_framing(rng)
    view = resize(reframe(pixels, box, scale), size)
    if flipped:
        view = np.ascontiguousarray(view[:, ::-1])
    return degrade(view, rng, as_jpeg=as_jpeg)


def h264(frames: Sequence[Pixels], crf: int, preset: str = "veryfast") -> list[Pixels]:
    """Frames after one round of H.264 in memory, those of a clip together, as in a video.

    Args:
        frames: (H, W, 3) uint8 each, all of one size, H and W even, in time order.
        crf: constant rate factor, 0 (lossless) to 51.

    Returns:
        As many frames of the same size.
    """
    height, width = frames[0].shape[:2]
    coder = av.CodecContext.create("libx264", "w")
    coder.width, coder.height, coder.pix_fmt = width, height, "yuv420p"
    coder.time_base, coder.framerate = Fraction(1, RATE), Fraction(RATE)
    # one thread and plain C give the same bytes on every machine; x264's AVX-512 code does not even from call to call
    coder.options = {"crf": str(crf), "preset": preset, "x264-params": "asm=0"}
    coder.thread_count = 1
    packets = []
    for number, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame.pts = number
        packets += coder.encode(frame)
    packets += coder.encode(None)
    reader = av.CodecContext.create("h264", "r")
    reader.thread_count = 1
    decoded = [frame for packet in packets for frame in reader.decode(packet)]
    decoded += reader.decode(None)
    return [frame.to_ndarray(format="rgb24") for frame in decoded]


def draw_h264(rng: np.random.Generator) -> tuple[int, str]:
    """A rate factor and a preset, at random."""
    return int(rng.integers(MIN_CRF, MAX_CRF + 1)), str(rng.choice(PRESETS))
