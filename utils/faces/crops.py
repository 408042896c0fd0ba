"""Cut one face out of a frame, the same way in training and in the product, and measure how good the cut is.

The rule: a square 1.3 times the longer side of the detector's box, centred on the box. It is never padded: a square
that reaches over the border is moved inside, and one larger than the picture shrinks to the picture's shorter side.
So a picture that is itself a tight face crop is used whole, undistorted and without an invented border. Training
varies the factor between 1.0 and 1.3, because its sources are framed differently (docs/models.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from utils.types import Box, Face, Floats, Pixels

CROP_SCALE = 1.3
CROP_PX = 224
PACK_PX = 256
"""Side of the squares that training keeps on disk; a little larger than a view, so that framing can vary."""
QUALITY_NAMES = ("face_px_log2", "sharpness_log", "contrast", "detector_score")


@dataclass(frozen=True)
class FaceCrop:
    """A face cut out of its frame.

    Args:
        landmarks: (5, 2) float32, pixels of the crop.
        box: the detector's box in pixels of the crop.
        source_px: longer side of the face box in pixels of the frame, before any resizing.
    """

    pixels: Pixels
    landmarks: Floats
    box: Box
    source_px: float
    detector_score: float


def crop_square(box: Box, width: int, height: int, scale: float = CROP_SCALE) -> Box:
    """The square around `box`, `scale` times its longer side, moved and shrunk into a frame of `width` x `height`.

    All four borders of the answer are whole pixels inside the frame.
    """
    side = max(8, min(round(scale * max(box.width, box.height)), width, height))
    side = min(side, width, height)
    cx, cy = box.centre
    x0 = min(max(round(cx - side / 2), 0), width - side)
    y0 = min(max(round(cy - side / 2), 0), height - side)
    return Box(x0, y0, x0 + side, y0 + side)


def crop_face(rgb: Pixels, face: Face, *, size: int = CROP_PX, scale: float = CROP_SCALE) -> FaceCrop:
    """Cut `face` out of its frame and resize the square to `size` x `size`.

    Args:
        scale: side of the square relative to the longer side of the face box.
    """
    height, width = rgb.shape[:2]
    square = crop_square(face.box, width, height, scale)
    cut = rgb[int(square.y0) : int(square.y1), int(square.x0) : int(square.x1)]
    factor = size / square.width
    origin = np.array([square.x0, square.y0], np.float32)
    b = face.box
    return FaceCrop(
        pixels=resize(cut, size),
        landmarks=((face.landmarks - origin) * factor).astype(np.float32),
        box=Box(
            (b.x0 - square.x0) * factor,
            (b.y0 - square.y0) * factor,
            (b.x1 - square.x0) * factor,
            (b.y1 - square.y0) * factor,
        ),
        source_px=max(b.width, b.height),
        detector_score=face.score,
    )


def crop_for_networks(rgb: Pixels, face: Face) -> FaceCrop:
    """The crop that the networks see, made step by step as training stores and sees it, so that both are bit-equal.

    Training keeps squares of `PACK_PX` and cuts its views out of them; this does the same with one face.
    """
    stored = crop_face(rgb, face, size=PACK_PX)
    shrink = CROP_PX / PACK_PX
    b = stored.box
    return replace(
        stored,
        pixels=network_view(stored.pixels, stored.box),
        landmarks=stored.landmarks * np.float32(shrink),
        box=Box(b.x0 * shrink, b.y0 * shrink, b.x1 * shrink, b.y1 * shrink),
    )


def network_view(stored: Pixels, box: Box) -> Pixels:
    """The unchanged view of a stored crop: the square of 1.3 times the face box, as large as the networks take it."""
    return resize(reframe(stored, box, CROP_SCALE), CROP_PX)


def reframe(pixels: Pixels, box: Box, scale: float) -> Pixels:
    """The square of `scale` times the longer side of the face box, cut out of a packed crop (never larger than it)."""
    x0, y0, side = reframe_window(pixels.shape[0], box, scale)
    return pixels[y0 : y0 + side, x0 : x0 + side]


def reframe_window(side_px: int, box: Box, scale: float) -> tuple[int, int, int]:
    """Left, top and side of the square that `reframe` cuts out of a packed crop of `side_px`, pixels."""
    side = max(16, min(round(scale * max(box.width, box.height)), side_px))
    cx, cy = box.centre
    x0 = min(max(round(cx - side / 2), 0), side_px - side)
    y0 = min(max(round(cy - side / 2), 0), side_px - side)
    return x0, y0, side


def resize(rgb: Pixels, size: int) -> Pixels:
    """A square picture at another size: area averaging when it shrinks, bicubic when it grows."""
    if rgb.shape[0] == size == rgb.shape[1]:
        return np.ascontiguousarray(rgb)
    method = cv2.INTER_AREA if rgb.shape[0] > size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(rgb, (size, size), interpolation=method), dtype=np.uint8)


def jpeg(pixels: Pixels, quality: int) -> Pixels:
    """The picture after one round of JPEG at `quality` (1..100)."""
    _, data = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if decoded is None:
        raise ValueError("the JPEG that was just written cannot be read")
    return np.ascontiguousarray(decoded[:, :, ::-1], np.uint8)


def measure_quality(pixels: Pixels, source_px: float, detector_score: float) -> Floats:
    """The four measurements that the gate sees beside the experts' logits, in the order of `QUALITY_NAMES`.

    Args:
        source_px: side of the face in the original frame, pixels.

    Returns:
        (4,) float32: log2 of the face's size, log of the variance of the Laplacian, contrast (standard deviation of
        the brightness, 0..1) and the detector's score.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    sharpness = float(cv2.Laplacian(grey, cv2.CV_32F).var())
    contrast = float(grey.std()) / 255
    return np.array(
        [math.log2(max(source_px, 1.0)), math.log(sharpness + 1.0), contrast, detector_score], dtype=np.float32
    )
