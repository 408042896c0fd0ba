"""Pictures that are no photographs, made of photographs: negatives, drawings, paintings, statues.

`fit_no_photo.py` fits the probe of what is no photograph (`utils/detection/face_report.py`) on them. Each takes an RGB
picture of a face, (S, S, 3) uint8, and a generator that draws its strength.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float32]
Made = Callable[[Pixels, np.random.Generator], Pixels]


def to_pixels(values: npt.NDArray[np.generic]) -> Pixels:
    return np.asarray(np.rint(np.clip(values, 0, 255)), np.uint8)


def grey_of(pixels: Pixels) -> Array:
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.float32)


def blurred(values: npt.NDArray[np.generic], sigma: float) -> Array:
    return np.asarray(cv2.GaussianBlur(values.astype(np.float32), (0, 0), sigma), np.float32)


def _paper(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """The colour of paper with a faint grain, (H, W, 3)."""
    grain = blurred(rng.normal(0, 1, shape[:2]), 0.8)[..., None]
    return np.asarray(rng.uniform([225, 218, 200], [255, 253, 248]) + grain * rng.uniform(2, 9), np.float32)


def negative(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Of colours, of grey, or of colour film with its orange mask."""
    seen = 255 - (pixels if rng.random() < 0.6 else np.repeat(grey_of(pixels)[..., None], 3, 2))
    return to_pixels(seen * (np.array([1.0, 0.72, 0.5]) if rng.random() < 0.25 else 1.0))


def pencil(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Grey lines and soft shades on paper: what is darker than what is around it."""
    grey = grey_of(pixels)
    light = np.minimum(1, grey / np.maximum(blurred(grey, float(rng.uniform(2, 12))), 1)) ** rng.uniform(1, 4)
    strokes = 1 - rng.uniform(0, 0.35) * blurred(rng.random(grey.shape), 0.7) * (1 - grey / 255)
    return to_pixels(_paper(pixels.shape, rng) * (light * strokes)[..., None])


def coloured_pencil(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    shade = float(rng.uniform(0.02, 0.08))
    both = cv2.pencilSketch(pixels, sigma_s=float(rng.uniform(20, 80)), sigma_r=float(rng.uniform(0.05, 0.12)),
                            shade_factor=shade)  # fmt: skip
    return np.asarray(both[1], np.uint8)


def ink(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Black on paper, as printed or engraved: a threshold that follows the light, in half of them hatched."""
    grey, size = grey_of(pixels), int(rng.choice([11, 15, 21]))
    dark = grey < blurred(grey, size / 3) - rng.uniform(2, 8)
    if rng.random() < 0.5:
        y, x = np.mgrid[: grey.shape[0], : grey.shape[1]]
        angle, step = rng.uniform(0, np.pi), rng.uniform(3, 7)
        wave = (np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / step) + 1) / 2
        dark |= wave * 255 > grey * rng.uniform(1.1, 1.8)
    lines = blurred(dark, float(rng.uniform(0.4, 0.9)))[..., None]
    return to_pixels(_paper(pixels.shape, rng) * (1 - lines) + lines * rng.uniform(0, 60, 3))


def cartoon(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Flat colours, in most of them with dark outlines."""
    flat = cv2.pyrMeanShiftFiltering(pixels, int(rng.integers(8, 18)), int(rng.integers(18, 45)))
    levels = int(rng.integers(4, 9))
    flat = np.rint(flat / 255 * levels) / levels * 255 if rng.random() < 0.6 else flat.astype(np.float64)
    grey = grey_of(pixels)
    lines = (grey < blurred(grey, 4) - rng.uniform(5, 12)) * (rng.random() < 0.7)
    return to_pixels(flat * (1 - 0.85 * blurred(lines, 0.7)[..., None]))


def stylised(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return np.asarray(
        cv2.stylization(pixels, sigma_s=float(rng.uniform(20, 90)), sigma_r=float(rng.uniform(0.25, 0.6))), np.uint8
    )


def oil(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Each place takes the mean colour of the calmest of four neighbouring squares; canvas and varnish over it.

    Source: Kuwahara et al. 1976, "Processing of RI-angiocardiographic images".
    """
    reach = int(rng.integers(3, 7))
    values, grey = pixels.astype(np.float32), grey_of(pixels)
    size = (reach + 1, reach + 1)
    best, out = np.full(grey.shape, np.inf, np.float32), values
    for anchor in ((0, 0), (reach, 0), (0, reach), (reach, reach)):
        mean, square = cv2.blur(grey, size, anchor=anchor), cv2.blur(grey**2, size, anchor=anchor)
        colour, spread = cv2.blur(values, size, anchor=anchor), square - mean**2
        out = np.where((spread < best)[..., None], colour, out)
        best = np.minimum(best, spread)
    return _varnished(out, rng)


def brushed(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Strokes along the edges, from broad to fine. Source: Hertzmann 1998, "Painterly rendering with curved brush
    strokes of multiple sizes", with straight ones."""
    soft = blurred(grey_of(pixels), 3)
    angle = np.arctan2(cv2.Sobel(soft, cv2.CV_32F, 0, 1), cv2.Sobel(soft, cv2.CV_32F, 1, 0)) + np.pi / 2
    canvas = to_pixels(blurred(pixels, 8))
    side = pixels.shape[0]
    for width in (11, 6, int(rng.integers(3, 5))):
        seen, count = to_pixels(blurred(pixels, width / 2)), int((side / width) ** 2)
        for y, x in rng.integers(0, side, (count, 2)):
            colour = seen[y, x] + rng.normal(0, 7, 3)
            along = width * rng.uniform(1, 2.5) * np.array([np.cos(angle[y, x]), np.sin(angle[y, x])])
            start, end = ((int(x + sign * along[0]), int(y + sign * along[1])) for sign in (-1, 1))
            cv2.line(canvas, start, end, [float(v) for v in np.clip(colour, 0, 255)], width, cv2.LINE_AA)
    return _varnished(canvas, rng)


def _varnished(values: npt.NDArray[np.generic], rng: np.random.Generator) -> Pixels:
    """Warm, a little darker, with the weave of a canvas in half of them."""
    out = values.astype(np.float32) * rng.uniform([0.85, 0.8, 0.65], [1.0, 0.98, 0.95])
    if rng.random() < 0.5:
        y, x = np.mgrid[: out.shape[0], : out.shape[1]]
        step = rng.uniform(2, 4)
        weave = np.sin(2 * np.pi * x / step) * np.sin(2 * np.pi * y / step)
        out += (rng.uniform(2, 9) * weave)[..., None]
    return to_pixels(out)


def statue(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """One material: detail weakened, light as from the side over the relief, colour of marble, plaster or bronze."""
    grey = blurred(cv2.medianBlur(pixels, int(rng.choice([3, 5, 7]))).mean(2), 1.0)
    slope = cv2.Sobel(grey, cv2.CV_32F, 1, 0) * rng.choice([-1, 1]) + cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    light = blurred(grey, rng.uniform(4, 12)) * rng.uniform(0.3, 0.7) + 70 + slope * rng.uniform(0.15, 0.6)
    stone = rng.choice(np.array([[1.0, 0.98, 0.93], [0.95, 0.93, 0.92], [0.75, 0.6, 0.42], [0.55, 0.62, 0.55]]))
    grain = blurred(rng.normal(0, 1, grey.shape), rng.uniform(0.5, 1.5))
    return to_pixels((light * rng.uniform(0.8, 1.3) + grain * rng.uniform(2, 12))[..., None] * stone)


KINDS: dict[str, Made] = {
    "negative": negative, "pencil": pencil, "coloured pencil": coloured_pencil, "ink": ink, "cartoon": cartoon,
    "stylised": stylised, "oil": oil, "brushed": brushed, "statue": statue,
}  # fmt: skip
