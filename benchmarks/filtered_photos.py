"""Photographs after strong but ordinary filters, which stay photographs: noise and its reduction, tints, contrast.

`fit_no_photo.py` counts them among the photographs, and measures on others what its probe makes of them. Each takes an
RGB picture of a face, (S, S, 3) uint8, and a generator that draws its strength.
"""

from __future__ import annotations

import cv2
import numpy as np

from benchmarks.no_photos import Array, Made, Pixels, blurred, grey_of, to_pixels
from utils.faces.crops import jpeg


def denoised(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    strength = float(rng.uniform(7, 15))
    return np.asarray(cv2.fastNlMeansDenoisingColored(pixels, None, strength, strength, 7, 15), np.uint8)


def smoothed(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """As beauty filters do: skin without pores, edges kept."""
    wide = float(rng.uniform(5, 15))
    return np.asarray(cv2.bilateralFilter(pixels, 15, float(rng.uniform(35, 70)), wide), np.uint8)


def noisy(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """A sensor's noise in little light, of colours or of brightness alone, in half of them with a grain of its own."""
    shape = pixels.shape if rng.random() < 0.6 else (*pixels.shape[:2], 1)
    noise = rng.normal(0, 1, shape).astype(np.float32)
    if rng.random() < 0.5:
        noise = blurred(noise, float(rng.uniform(0.4, 1.0))).reshape(shape)
        noise /= max(float(noise.std()), 1e-6)
    return to_pixels(pixels + rng.uniform(15, 45) * noise)


def hard_grey(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return to_pixels(_contrast(grey_of(pixels), rng.uniform(1.4, 2.8), rng)[..., None] * np.ones(3, np.float32))


def hard(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return to_pixels(_contrast(pixels.astype(np.float32), rng.uniform(1.3, 2.4), rng))


def tinted(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Grey or its own colours, through a filter of any colour."""
    colour = rng.uniform(0.25, 1.25, 3)
    kept = grey_of(pixels)[..., None] if rng.random() < 0.6 else pixels.astype(np.float32)
    return to_pixels(kept * colour / max(float(colour @ [0.299, 0.587, 0.114]), 0.5))


def styled(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """As apps style photos: a curve for each channel, faded blacks, other saturation, dark corners."""
    light = pixels.astype(np.float32) / 255
    light = light ** np.exp(rng.uniform(-0.5, 0.5, 3)) * rng.uniform(0.75, 1.0, 3) + rng.uniform(0, 0.2, 3)
    light = light.mean(2, keepdims=True) + rng.uniform(0.3, 1.7) * (light - light.mean(2, keepdims=True))
    y, x = np.mgrid[-1 : 1 : light.shape[0] * 1j, -1 : 1 : light.shape[1] * 1j]
    return to_pixels(255 * light * (1 - rng.uniform(0, 0.5) * (x**2 + y**2) / 2)[..., None])


def coarse_jpeg(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return jpeg(pixels, int(rng.integers(8, 30)))


def _contrast(values: Array, gain: float, rng: np.random.Generator) -> Array:
    middle = rng.uniform(95, 145)
    return (values - middle) * gain + middle


FILTERS: dict[str, Made] = {
    "denoised": denoised, "smoothed": smoothed, "noisy": noisy, "hard grey": hard_grey, "hard": hard, "tinted": tinted,
    "styled": styled, "coarse jpeg": coarse_jpeg,
}  # fmt: skip
