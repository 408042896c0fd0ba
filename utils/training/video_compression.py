"""H.264 in memory: what the coding of a video does to a face, for crops and clips that are augmented.

One frame is coded as a key frame; the frames of a clip together, so that later ones are predicted from earlier ones as
in a real video. The coder never sees a label, so real and fake go through it alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np

from utils.types import Pixels

MIN_CRF, MAX_CRF = 18, 40
"""Constant rate factors that are drawn: 18 is nearly the original, 40 a bad video call."""
PRESETS = ("ultrafast", "veryfast")
"""Coders with and without deblocking; a crop takes about 3 ms with either."""
RATE = 25


def h264(frames: Sequence[Pixels], crf: int, preset: str = "veryfast") -> list[Pixels]:
    """Frames after one round of H.264.

    Args:
        frames: (H, W, 3) uint8 each, all of one size, H and W even, in time order.
        crf: constant rate factor, 0 (lossless) to 51.
        preset: of x264.

    Returns:
        As many frames of the same size.

    Raises:
        ValueError: sides are odd or differ, or the crf is outside its range.
    """
    if not frames:
        return []
    height, width = frames[0].shape[:2]
    if any(frame.shape != (height, width, 3) for frame in frames) or height % 2 or width % 2:
        raise ValueError("frames must have one size with even sides")
    if not 0 <= crf <= 51:
        raise ValueError(f"crf must be within 0..51: {crf}")
    coder = av.CodecContext.create("libx264", "w")
    coder.width, coder.height, coder.pix_fmt = width, height, "yuv420p"
    coder.time_base, coder.framerate = Fraction(1, RATE), Fraction(RATE)
    coder.options = {"crf": str(crf), "preset": preset}
    coder.thread_count = 1  # the same bytes on every machine
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
