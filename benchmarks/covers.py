"""Covers drawn on faces: glasses, masks, stickers, bars, hands, large squares, and those worn by others.

`fit_cover.py` fits the probe of covers (`utils/detection/face_report.py`) on them. Sizes are in distances between the
eyes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from utils.training.augment import degrade
from utils.types import Pixels

Array = npt.NDArray[Any]


class Canvas:
    """The crop of a face with its landmarks, and what is put over it.

    Args:
        crop: (S, S, 3) uint8.
        landmarks: (5, 2) eyes, nose and corners of the mouth, pixels of the crop.
        rng: the caller's generator.
    """

    def __init__(self, crop: Pixels, landmarks: Array, rng: np.random.Generator) -> None:
        self.crop, self.rng, self.side = crop, rng, crop.shape[0]
        self.eyes, self.nose, self.corners = landmarks[:2].astype(float), landmarks[2].astype(float), landmarks[3:]
        self.mouth, self.between = self.corners.mean(0).astype(float), self.eyes.mean(0)
        across = self.eyes[1] - self.eyes[0]
        self.unit = float(np.hypot(*across)) + 1e-6
        self.angle = float(np.arctan2(across[1], across[0]))
        self.y, self.x = np.mgrid[: self.side, : self.side].astype(np.float32)
        self.colours = np.zeros((self.side, self.side, 3), np.float32)
        self.cover = np.zeros((self.side, self.side), np.float32)

    def put(self, shape: Array, colour: Any) -> None:
        """A shape, 0..1, over what is there; of one colour or of a picture."""
        shape = shape[..., None]
        self.colours = self.colours * (1 - shape) + np.asarray(colour, np.float32) * shape
        self.cover = np.maximum(self.cover, shape[..., 0])

    def around(self, centre: Array, angle: float) -> tuple[Array, Array]:
        """Coordinates along and across an angle from a centre, in units."""
        x, y = (self.x - centre[0]) / self.unit, (self.y - centre[1]) / self.unit
        return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)

    def inside(self, distance: Array) -> Array:
        """A shape with soft edges, of what is negative, in units."""
        return np.asarray(np.clip(0.5 - distance * self.unit, 0, 1))

    def line(self, start: Array, end: Array, width: float) -> Array:
        """How far each pixel is from a line, less half its width, units."""
        along = end - start
        points = np.stack([self.x - start[0], self.y - start[1]], -1)
        share = np.clip((points @ along) / (along @ along + 1e-6), 0, 1)
        off = points - share[..., None] * along
        return np.asarray(np.hypot(off[..., 0], off[..., 1]) / self.unit - width / 2)

    def clouds(self, cells: int, spread: float) -> Array:
        """Soft noise, (S, S, 3)."""
        noise = self.rng.normal(0, spread, (cells, cells, 3)).astype(np.float32)
        return np.asarray(cv2.resize(noise, (self.side, self.side), interpolation=cv2.INTER_CUBIC), np.float32)

    def colour(self, low: float = 0, high: float = 255) -> Array:
        """Any colour."""
        return self.rng.uniform(low, high, 3).astype(np.float32)

    def finished(self, opacity: float = 1.0) -> Pixels:
        """The covered face, its cover lit unevenly, with edges as sharp as a photo's."""
        blur = float(self.rng.uniform(0.3, 1.6))
        cover = cv2.GaussianBlur(self.cover, (0, 0), blur)[..., None] * opacity
        light = 1 + self.clouds(3, 0.12)[..., :1]
        mixed = self.crop * (1 - cover) + np.clip(cv2.GaussianBlur(self.colours, (0, 0), blur) * light, 0, 255) * cover
        return np.asarray(np.clip(mixed, 0, 255), np.uint8)


def _glasses(on: Canvas) -> Pixels:
    rng = on.rng
    lens, rim = on.colour(0, 70) if rng.random() < 0.7 else on.colour(0, 220), on.colour(0, 90)
    rim = rim if rng.random() < 0.7 else on.colour(0, 255)
    half = np.array([rng.uniform(0.36, 0.55), rng.uniform(0.25, 0.45)])
    power, taper, width = rng.uniform(1.8, 5), rng.uniform(-0.25, 0.35), rng.uniform(0, 0.1)
    fade = rng.uniform(-0.6, 0.9) if rng.random() < 0.6 else 0.0
    mirror = on.clouds(int(rng.integers(3, 12)), 1)[..., :1] * rng.uniform(0, 60) * (rng.random() < 0.7)
    tint = on.colour(0.5, 1.5) if rng.random() < 0.4 else np.ones(3)
    for eye, side in zip(on.eyes, (-1, 1), strict=True):
        along, across = on.around(eye + np.array([0, rng.uniform(-0.02, 0.1) * on.unit]), on.angle)
        reach = (np.abs(along / (half[0] * (1 - taper * across))) ** power + np.abs(across / half[1]) ** power) ** (
            1 / power
        )
        fill = lens + np.clip(across / half[1] * fade, -1, 1)[..., None] * (on.crop * 0.5) + np.abs(mirror) * tint
        temple = eye + np.array([side * rng.uniform(0.8, 1.1), -rng.uniform(0.02, 0.16)]) * on.unit
        on.put(on.inside(on.line(eye + np.array([side * half[0] * 0.9, -0.08]) * on.unit, temple, 0.04 + width)), rim)
        on.put(on.inside((reach - 1) * half.min() - width), rim)
        on.put(on.inside((reach - 1) * half.min()), np.clip(fill, 0, 255))
    inner = (on.eyes[1] - on.eyes[0]) * (0.5 - half[0]) * 1.4
    on.put(on.inside(on.line(on.between - inner, on.between + inner, 0.04 + width)), rim)
    return on.finished(float(rng.uniform(0.85, 1)))


def _mask(on: Canvas) -> Pixels:
    rng, unit = on.rng, on.unit
    light = on.colour(120, 255) if rng.random() < 0.6 else rng.normal([150, 190, 205], 15)
    colour = np.clip(light if rng.random() < 0.7 else on.colour(0, 120), 0, 255)
    wide, down = rng.uniform(0.4, 0.7), rng.uniform(0.5, 1.0)
    left, right = on.eyes + np.array([[-wide * unit, 0], [wide * unit, 0]])
    left[1] = right[1] = on.nose[1] + rng.uniform(-0.1, 0.2) * unit
    top = on.nose + np.array([0, rng.uniform(-0.45, 0.1) * unit])
    low = [on.corners[1] + np.array([0.3, 0.45 * down]) * unit, on.mouth + np.array([0, down]) * unit]
    outline = np.stack([left, top, right, *low, on.corners[0] + np.array([-0.3, 0.45 * down]) * unit])
    shape = np.zeros((on.side, on.side), np.float32)
    cv2.fillPoly(shape, [np.round(outline + rng.normal(0, 0.04, (6, 2)) * unit).astype(np.int32)], 1.0, cv2.LINE_AA)
    folds = np.sin(on.y / unit * rng.uniform(5, 30) + rng.uniform(0, 6))[..., None] * rng.uniform(0, 18)
    on.put(shape, np.clip(colour + folds + on.clouds(int(rng.integers(3, 40)), rng.uniform(3, 25)), 0, 255))
    for start, side in ((left, -1), (right, 1)):
        ear = start + np.array([side * 0.5, -rng.uniform(0.1, 0.4)]) * unit
        on.put(on.inside(on.line(start, ear, rng.uniform(0.02, 0.06))), colour)
    return on.finished()


def _sticker(on: Canvas) -> Pixels:
    rng = on.rng
    places = [on.nose, on.between, on.mouth, *on.eyes, (on.nose + on.mouth) / 2]
    centre = places[rng.integers(len(places))] + rng.normal(0, 0.1, 2) * on.unit
    along, across = on.around(centre, rng.uniform(0, 3))
    size, points, depth = rng.uniform(0.4, 1.0), rng.integers(3, 9), rng.uniform(0, 0.35)
    edge = size * (1 - depth * np.cos(points * np.arctan2(across, along)))
    on.put(on.inside(np.hypot(along, across) - edge), on.colour(30, 255))
    outer = on.cover.copy()
    for _ in range(rng.integers(1, 5)):
        along, across = on.around(centre + rng.normal(0, 0.35, 2) * size * on.unit, 0)
        on.put(on.inside(np.hypot(along, across) - rng.uniform(0.05, 0.25) * size) * outer, on.colour())
    return on.finished()


def _bar(on: Canvas) -> Pixels:
    rng = on.rng
    centre = (on.between if rng.random() < 0.75 else on.mouth) + rng.normal(0, 0.05, 2) * on.unit
    along, across = on.around(centre, on.angle if rng.random() < 0.5 else 0)
    reach = np.maximum(np.abs(along) - rng.uniform(0.9, 1.5), np.abs(across) - rng.uniform(0.2, 0.4))
    on.put(on.inside(reach), on.colour(0, 30) if rng.random() < 0.7 else on.colour())
    return on.finished()


def _hand(on: Canvas) -> Pixels:
    rng, unit = on.rng, on.unit
    x, y = np.clip(on.nose, 6, on.side - 6).astype(int)
    skin = np.median(on.crop[y - 5 : y + 5, x - 5 : x + 5].reshape(-1, 3), 0) * rng.uniform(0.7, 1.15)
    skin = np.clip(skin + rng.normal(0, 6, 3), 0, 255)
    cheek = (on.eyes[(side := int(rng.integers(2)))] + on.corners[side]) / 2
    goal = [on.mouth, on.between, cheek, on.mouth + np.array([0, 0.5 * unit])][
        rng.choice(4, p=[0.35, 0.15, 0.25, 0.25])
    ]
    turn = rng.normal(0, 0.6) + (0 if rng.random() < 0.6 else rng.choice([-1, 1]) * np.pi / 2)
    ahead, aside = np.array([np.sin(turn), -np.cos(turn)]), np.array([np.cos(turn), np.sin(turn)])
    width, count, spread = rng.uniform(0.2, 0.34), int(rng.integers(1, 6)), rng.uniform(0.95, 1.2)
    palm = goal - ahead * rng.uniform(0.8, 1.4) * unit
    texture = on.clouds(int(rng.integers(4, 20)), rng.uniform(3, 14))
    limbs = [(palm, palm - ahead * 3 * unit, width * count * 1.1)] if rng.random() < 0.8 else []
    for finger in range(count):
        place = (finger - (count - 1) / 2) * width * spread
        tip = goal + (aside * place + ahead * rng.normal(0.2, 0.12)) * unit
        limbs.append((tip, palm + aside * place * rng.uniform(0.6, 1) * unit, width * rng.uniform(0.85, 1.05)))
    for start, end, thick in limbs:
        distance = on.line(start, end, thick)
        round_off = np.clip(1 + distance / (thick / 2), 0, 1)[..., None] ** 2  # darker towards the edge
        on.put(on.inside(distance), np.clip(skin * (1 - rng.uniform(0.2, 0.5) * round_off) + texture, 0, 255))
    return on.finished()


def _squares(on: Canvas) -> Pixels:
    rng, unit = on.rng, on.unit
    (left, right), part = on.eyes, rng.random()
    if part < 0.6:
        box = (*(left - 0.8 * unit), right[0] + 0.8 * unit, on.mouth[1] + 0.8 * unit)
    elif part < 0.85:
        box = (*(left - np.array([0.6, 0.4]) * unit), *(right + np.array([0.6, 0.4]) * unit))
    else:
        box = (*(on.corners[0] - np.array([0.5, 0.4]) * unit), *(on.corners[1] + np.array([0.5, 0.4]) * unit))
    x0, y0, x1, y1 = np.clip(box, 0, on.side).astype(int)
    size = max(2.0, rng.uniform(0.12, 0.35) * unit)
    out = on.crop.copy()
    if min(x1 - x0, y1 - y0) > size:
        grid = (int((x1 - x0) / size), int((y1 - y0) / size))
        small = cv2.resize(out[y0:y1, x0:x1], grid, interpolation=cv2.INTER_AREA)
        out[y0:y1, x0:x1] = cv2.resize(small, (x1 - x0, y1 - y0), interpolation=cv2.INTER_NEAREST)
    return out


DRAWN: dict[str, Callable[[Canvas], Pixels]] = {
    "glasses": _glasses, "mask": _mask, "sticker": _sticker, "bar": _bar, "hand": _hand, "squares": _squares,
}  # fmt: skip


def drawn(kind: str, crop: Pixels, landmarks: Array, rng: np.random.Generator) -> Pixels:
    """A face with a cover of a kind in `DRAWN` over it, then saved and scaled as pictures are on their way."""
    return degrade(DRAWN[kind](Canvas(crop, landmarks, rng)), rng)


def taken_over(
    crop: Pixels, landmarks: Array, other: Pixels, theirs: Array, part: str, rng: np.random.Generator
) -> Pixels:
    """A face with the `eyes` or the `mouth` of another one: with what that one wears there, or with nothing."""
    on = Canvas(crop, landmarks, rng)
    fit, _ = cv2.estimateAffinePartial2D(theirs.astype(np.float32), landmarks.astype(np.float32), method=cv2.LMEDS)
    moved = cv2.warpAffine(other, fit, (on.side, on.side), borderMode=cv2.BORDER_REFLECT)
    centre = on.between if part == "eyes" else (on.nose + 2 * on.mouth) / 3
    along, across = on.around(centre, on.angle)
    half = (1.05, 0.5) if part == "eyes" else (0.95, 0.85)
    shape = on.inside((np.maximum(np.abs(along) / half[0], np.abs(across) / half[1]) - 1) * min(half))
    on.put(cv2.GaussianBlur(shape, (0, 0), 0.06 * on.unit), moved)
    return degrade(on.finished(), rng)
