"""What happens to pictures on their way, for real and fake alike; nothing here ever sees the label.

First what phones, editors and people do to a real photo that makes it no fake: noise reduction and smoothing of the
usual kinds, sharpening, tone curves, grey, grain, screenshots, a face turned by quarters, sunglasses, masks and bars
over it. It works on a packed crop before it is framed, at the size that the face had in its picture, for a filter of
three pixels means another thing after enlarging. Then framing, flip, re-encoding, rescaling, blur, noise, light, H.264.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import av
import cv2
import numpy as np

from utils.faces.crops import CROP_PX, jpeg, reframe, resize
from utils.training.blending import face_hull
from utils.types import Box, Floats, Pixels

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


SHRUNK, FILTERED, TWICE, COVERED, TURNED = 0.5, 0.55, 0.25, 0.08, 0.12
"""How often a view is made smaller, filtered, filtered once more (of those filtered), covered, turned."""
LEAST_FACE_PX, MOST_FACE_PX = 48, 200
"""Between these a view's new face size is drawn, whatever its own was, so that size says nothing of the label."""

Filter = Callable[[Pixels, np.random.Generator], Pixels]


def processed(pixels: Pixels, box: Box, marks: Floats, face_px: float, rng: np.random.Generator) -> tuple[Pixels, Box]:
    """A packed crop after some of these, drawn at random, and where its face box lies then.

    Args:
        face_px: longer side of the face box in the original picture, pixels.
    """
    side = pixels.shape[0]
    if rng.random() < COVERED:
        pixels = covered(pixels, marks, rng)
    scale = min(1.0, face_px / max(box.width, box.height))
    if rng.random() < SHRUNK:
        wanted = np.exp(rng.uniform(np.log(LEAST_FACE_PX), np.log(MOST_FACE_PX)))
        scale = min(scale, wanted / max(box.width, box.height))
    small = resize(pixels, max(32, round(side * scale)))
    if rng.random() < FILTERED:
        for _ in range(2 if rng.random() < TWICE else 1):
            small = FILTERS[int(rng.integers(len(FILTERS)))](small, rng)
    pixels = resize(small, side)
    if rng.random() < TURNED:
        pixels, box = turned(pixels, box, int(rng.integers(1, 4)))
    return pixels, box


def smoothed(pixels: Pixels, box: Box, face_px: float, rng: np.random.Generator) -> Pixels:
    """A packed crop after noise reduction of one kind, at the size that its face (`face_px`) had, and often a JPEG."""
    side = pixels.shape[0]
    small = resize(pixels, max(32, round(side * min(1.0, face_px / max(box.width, box.height)))))
    small = SMOOTHING[int(rng.integers(len(SMOOTHING)))](small, rng)
    if rng.random() < TWICE:
        small = sharpened(small, rng)
    return resize(jpeg(small, int(rng.integers(75, 99))) if rng.random() < FILTERED else small, side)


def turned(pixels: Pixels, box: Box, quarters: int) -> tuple[Pixels, Box]:
    """A square picture turned to the left by quarters, with its face box."""
    side = pixels.shape[0]
    for _ in range(quarters):
        box = Box(box.y0, side - box.x1, box.y1, side - box.x0)
    return np.ascontiguousarray(np.rot90(pixels, quarters)), box


def non_local_means(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    strength = float(rng.uniform(2, 9))
    return np.asarray(cv2.fastNlMeansDenoisingColored(pixels, None, strength, strength, 5, 15), np.uint8)


def bilateral(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return np.asarray(cv2.bilateralFilter(pixels, 7, float(rng.uniform(15, 70)), float(rng.uniform(2, 6))), np.uint8)


def median(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return np.asarray(cv2.medianBlur(pixels, int(rng.choice([3, 3, 5]))), np.uint8)


def soft_threshold(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Noise reduction as wavelets do it: weak detail of two scales is taken away, strong detail made weaker."""
    rest, kept, limit = pixels.astype(np.float32), np.zeros(pixels.shape, np.float32), float(rng.uniform(2, 10))
    for sigma in (0.8, 1.6):
        smooth = cv2.GaussianBlur(rest, (0, 0), sigma)
        detail = rest - smooth
        kept += np.sign(detail) * np.maximum(np.abs(detail) - limit, 0)
        rest, limit = smooth, limit / 2
    return _to_pixels(rest + kept)


def beauty(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """A smooth skin: a strong bilateral filter, partly mixed in, and a little light."""
    smooth = cv2.bilateralFilter(pixels, 9, float(rng.uniform(40, 90)), float(rng.uniform(5, 12))).astype(np.float32)
    share = rng.uniform(0.4, 0.95)
    return _to_pixels(share * smooth + (1 - share) * pixels + rng.uniform(0, 12))


def sharpened(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    smooth = cv2.GaussianBlur(pixels, (0, 0), float(rng.uniform(0.7, 2.0))).astype(np.float32)
    return _to_pixels(pixels + rng.uniform(0.3, 1.5) * (pixels - smooth))


def telephone(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """What a phone's camera does: noise reduction, then sharpening."""
    return sharpened(non_local_means(pixels, rng) if rng.random() < 0.5 else bilateral(pixels, rng), rng)


def tone_curve(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """High dynamic range: local contrast, an S curve or gamma, colours a little stronger or weaker."""
    lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)
    if rng.random() < 0.5:
        lab[..., 0] = cv2.createCLAHE(float(rng.uniform(1, 3.5)), (4, 4)).apply(lab[..., 0])
    light = lab[..., 0].astype(np.float32) / 255
    light = light ** float(np.exp(rng.uniform(-0.5, 0.5)))
    around = cv2.GaussianBlur(light, (0, 0), pixels.shape[0] / 10)
    lab[..., 0] = _to_pixels(255 * (light + rng.uniform(-0.2, 0.6) * (light - around)))
    lab[..., 1:] = _to_pixels(128 + rng.uniform(0.6, 1.4) * (lab[..., 1:].astype(np.float32) - 128))
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.uint8)


def grey(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """No colour, or all of one."""
    light = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)[..., None]
    tint = np.ones(3) if rng.random() < 0.7 else np.array([1.05, 0.97, 0.85])
    return _to_pixels(light * tint)


def grain(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Film grain: noise of one colour with a size of its own, strongest in the middle tones."""
    noise = rng.normal(0, 1, pixels.shape[:2]).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), float(rng.uniform(0.4, 1.1)))
    noise *= rng.uniform(3, 14) / max(float(noise.std()), 1e-6)
    middle = 1 - np.abs(pixels.mean(2) / 127.5 - 1) * 0.7
    return _to_pixels(pixels + (noise * middle)[..., None])


def screenshot(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Shown at another size, saved without loss or as a JPEG, and brought back."""
    side = pixels.shape[0]
    methods = [cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA, cv2.INTER_NEAREST]
    shown = max(32, round(side * float(rng.uniform(0.6, 1.6))))
    method = methods[int(rng.choice(4, p=[0.4, 0.3, 0.2, 0.1]))]
    out = np.asarray(cv2.resize(pixels, (shown, shown), interpolation=method), np.uint8)
    if rng.random() < 0.5:
        out = jpeg(out, int(rng.integers(50, 96)))
    return resize(out, side)


def twice_a_jpeg(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return jpeg(jpeg(pixels, int(rng.integers(40, 96))), int(rng.integers(60, 96)))


FILTERS: tuple[Filter, ...] = (
    non_local_means, non_local_means, bilateral, median, soft_threshold, beauty, sharpened, telephone, tone_curve, grey,
    grain, screenshot, twice_a_jpeg,
)  # fmt: skip
"""What a view may go through; noise reduction twice, as it is the most usual of them."""
SMOOTHING: tuple[Filter, ...] = (
    non_local_means, non_local_means, bilateral, median, soft_threshold, beauty, telephone
)  # fmt: skip
"""What reduces noise, and with it the traces that tell a photo."""


def covered(pixels: Pixels, marks: Floats, rng: np.random.Generator) -> Pixels:
    """Sunglasses, a mask over mouth and nose, or a bar over the eyes, drawn in one colour with soft edges."""
    left, right, nose = marks[0], marks[1], marks[2]
    along = right - left
    apart = float(np.linalg.norm(along))
    angle = float(np.degrees(np.arctan2(along[1], along[0])))
    shape = np.zeros(pixels.shape[:2], np.float32)
    kind = rng.random()
    if kind < 0.5:
        axes = (max(1, round(apart * rng.uniform(0.3, 0.44))), max(1, round(apart * rng.uniform(0.22, 0.36))))
        for eye in (left, right):
            cv2.ellipse(shape, (round(float(eye[0])), round(float(eye[1]))), axes, angle, 0, 360, 1.0, -1)
        _line(shape, left - 0.9 * along, right + 0.9 * along, apart * 0.06)
    elif kind < 0.85:
        hull = face_hull(marks)
        below = ((hull - nose) @ np.array([-along[1], along[0]], np.float32)) > -0.1 * apart**2
        corners = np.concatenate([hull[below], (nose - 0.7 * along)[None], (nose + 0.7 * along)[None]])
        cv2.fillConvexPoly(shape, cv2.convexHull(np.rint(corners).astype(np.int32)), 1.0)
    else:
        _line(shape, left - 0.5 * along, right + 0.5 * along, apart * rng.uniform(0.3, 0.5))
    shape = cv2.GaussianBlur(shape, (0, 0), 1.0)[..., None] * rng.uniform(0.8, 1.0)
    colour = rng.uniform(0, 60, 3) if kind < 0.5 or rng.random() < 0.3 else rng.uniform(60, 250, 3)
    shade = cv2.GaussianBlur(pixels, (0, 0), apart / 4 + 1).astype(np.float32).mean(2, keepdims=True) / 128
    texture = rng.normal(0, 2.5, pixels.shape[:2]).astype(np.float32)[..., None]
    return _to_pixels((1 - shape) * pixels + shape * (colour * (0.6 + 0.4 * shade) + texture))


def _line(shape: Floats, start: Floats, end: Floats, thickness: float) -> None:
    ends = [(round(float(x)), round(float(y))) for x, y in (start, end)]
    cv2.line(shape, ends[0], ends[1], 1.0, max(1, round(thickness)))


def _to_pixels(values: Floats) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
