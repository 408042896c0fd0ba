"""How a JPEG was saved: its quality by the quantisation tables, and the quality of the time before by their traces.

Runs in the confined child. A second saving on the same grid of blocks leaves gaps between the values of a coefficient:
they lie near multiples of the first table's steps, rounded to those of the second. For each quality of libjpeg it is
asked how much better such gaps explain the values than a smooth distribution does. Only a first quality clearly below
the second leaves traces that are told apart from chance; nothing is said of others, nor of pictures that were resized
or cut off the grid in between.

Source: Lukáš and Fridrich, *Estimation of primary quantization matrix in double compressed JPEG images*, 2003.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from utils.media_types import Floats, Pixels

SIDE = 1024
"""Pixels of the square in the middle that is looked at, at most."""
QUALITIES = range(30, 93)
MIN_GAIN = 0.06
"""Nats per coefficient by which the gaps must explain the values better; single savings reach 0.05."""

_LUMA = np.array((
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
))  # fmt: skip
"""The table of luminance in ITU-T T.81, K.1, which libjpeg scales."""
_PERCENT = np.array([5000 // quality if quality < 50 else 200 - 2 * quality for quality in range(1, 101)])
TABLES = np.clip((_LUMA * _PERCENT[:, None] + 50) // 100, 1, 255)
"""The 64 steps of libjpeg, row by row, for each quality from 1 to 100."""
_FREQUENCIES = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2), (2, 1), (0, 3), (3, 0), (2, 2))
_LARGEST = 24  # multiples of a step that are looked at
_FEWEST = 200  # coefficients that a histogram needs
_SMOOTH = np.array((1, 2, 3, 2, 1)) / 9
_NOISE = ((-0.5, 0.25), (0.0, 0.5), (0.5, 0.25))  # what rounding to whole pixels does to a coefficient, and how often
_WAVES = np.array([[np.cos(np.pi * (2 * n + 1) * k / 16) / (2 if k else 8**0.5) for n in range(8)] for k in range(8)])
_PATTERNS = np.stack([np.outer(_WAVES[row], _WAVES[column]).ravel() for row, column in _FREQUENCIES], 1)  # (64, 10)


def read_compression(file: BinaryIO) -> dict[str, Any] | None:
    """The quality of a JPEG and of the saving before it, as of `utils.media_types.Compression`.

    Args:
        file: an open JPEG; its position is changed.

    Returns:
        `quality`, `quality_before` (or None) and `tables`; None where the file has no table.
    """
    file.seek(0)
    with Image.open(file, formats=("JPEG",)) as image:
        tables = getattr(image, "quantization", {})
        if len(tables.get(0, ())) != 64:
            return None
        table = np.array(tables[0])
        quality, standard = _quality(table)
        image.draft("L", image.size)
        width, height = (side // 8 * 8 for side in image.size)
        left, top = (max(0, (side - SIDE) // 2) // 8 * 8 for side in (width, height))
        square = image.crop((left, top, min(width, left + SIDE), min(height, top + SIDE))).convert("L")
    before = _before(_coefficients(np.asarray(square)), table.reshape(8, 8))
    return {
        "quality": quality,
        "quality_before": before if before and before < quality else None,
        "tables": "standard" if standard else "own",
    }


def _quality(table: Any) -> tuple[int, bool]:
    """The nearest quality by the mean ratio of the steps, and whether its table is the same."""
    apart = np.abs(np.log(table / TABLES)).mean(1)
    nearest = int(np.argmin(apart))
    return nearest + 1, float(apart[nearest]) == 0.0


def _coefficients(luma: Pixels) -> Floats:
    """`_FREQUENCIES` of the blocks that are nowhere black or white, (N, 10)."""
    blocks = luma.reshape(luma.shape[0] // 8, 8, -1, 8).swapaxes(1, 2).reshape(-1, 64)
    inside = (blocks.min(1) > 2) & (blocks.max(1) < 253)
    return np.asarray(blocks[inside] @ _PATTERNS, np.float32)


def _before(coefficients: Floats, table: Any) -> int | None:
    """The quality of the saving before, where its gaps are clear."""
    tables = TABLES.reshape(-1, 8, 8)[QUALITIES.start - 1 : QUALITIES.stop - 1]
    gains, counted = np.zeros(len(QUALITIES)), 0.0
    for number, place in enumerate(_FREQUENCIES):
        step = int(table[place])
        sizes = np.abs(np.rint(coefficients[:, number] / step)).astype(int)
        histogram = np.bincount(sizes[sizes <= 3 * _LARGEST], minlength=3 * _LARGEST + 1).astype(float)
        seen = histogram[1 : _LARGEST + 1]
        if seen.sum() < _FEWEST:
            continue
        counted += seen.sum()
        mirrored = np.concatenate([histogram[2:0:-1], histogram, histogram[-2:]])
        smooth = np.log(np.convolve(mirrored, _SMOOTH, "valid") + 0.5)
        smooth[0] = 2 * smooth[1] - smooth[2]
        plain = np.exp(smooth[1 : _LARGEST + 1])
        plain /= plain.sum()
        firsts = tables[(..., *place)]
        for first in set(firsts.tolist()) - {1}:  # neighbouring qualities share it
            expected = 0.97 * _with_gaps(smooth, first, step) + 0.03 * plain
            gains[firsts == first] += float((seen * np.log(expected / plain)).sum())
    best = int(np.argmax(gains))
    return QUALITIES[best] if counted and gains[best] / counted >= MIN_GAIN else None


def _with_gaps(smooth: Any, first: int, step: int) -> Any:
    """How often each multiple of `step` is expected where the values were multiples of `first` before."""
    values = np.arange((_LARGEST + 2) * step // first + 2) * first
    often = np.exp(np.interp(values / step, np.arange(len(smooth)), smooth))
    expected = np.zeros(_LARGEST + 2)
    for shift, share in _NOISE:
        np.add.at(expected, np.minimum(np.rint((values + shift) / step).astype(int), _LARGEST + 1), share * often)
    inside = expected[1:-1]
    return inside / max(float(inside.sum()), 1e-9)
