"""Face crops of all samples in one file on disk, so that detection and decoding are paid once.

`pack_faces` runs the product's own decoder, detector, tracker and cropper over every sample and writes
`crops.npy` (N, 256, 256, 3) and `index.json`. It continues where an earlier run was stopped. Files without a face are
listed by name, never silently left out.

Groups keep a person's files together in one split (`datasets.check_groups`); `find_twins` finds what the groups do not
know: a photo that lies in a data set twice, under two names. A perceptual hash finds candidates. Aligned faces of
different people also get hashes that are alike, so a candidate counts only when small grey versions of both agree.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from utils.errors import MediaError, TrainingDataError
from utils.evaluation.datasets import is_of
from utils.evaluation.layouts import Sample
from utils.faces.crops import PACK_PX, crop_face
from utils.faces.detector import FaceDetector
from utils.faces.tracking import track_faces
from utils.files import replace_file
from utils.media.images import decode_image
from utils.media.limits import MediaLimits
from utils.media.video import decode_video
from utils.phash import perceptual_hash
from utils.training.loop import bar
from utils.types import Box, Floats, MediaKind, Pixels

CHUNK = 512
"""Samples per file on disk while packing; a stopped run loses at most one chunk."""
NEAR_BITS = 10
"""Crops are compared closely when their hashes differ in at most so many of 64 bits."""
SMALL_PX, SAME = 32, 0.93
"""Crops are of the same picture when the correlation of their small grey versions reaches this."""
LEFT_OUT = "left out"
"""The split of a crop that is in none."""


@dataclass(frozen=True)
class PackedCrop:
    """One row of a pack: where its pixels are and all that training needs to know about them.

    Args:
        file: path of the sample's file; the crops of one video share it.
        frame: index among the frames taken from a video; 0 for pictures.
        source: see `Sample`, as are `group`, `generator` and `split`.
        box: the detector's box in pixels of the packed crop.
        landmarks: (5, 2) pixels of the packed crop, as nested tuples.
        source_px: longer side of the face box in the original frame, pixels.
        picture_px: shorter side of the original frame, pixels.
    """

    row: int
    file: str
    frame: int
    kind: str
    label: int
    source: str
    group: str
    generator: str
    split: str
    box: tuple[float, float, float, float]
    landmarks: tuple[tuple[float, float], ...]
    source_px: float
    detector_score: float
    picture_px: int

    def face_box(self) -> Box:
        return Box(*self.box)

    def marks(self) -> Floats:
        return np.array(self.landmarks, np.float32)


@dataclass(frozen=True)
class Pack:
    """Packed crops: `pixels` (N, 256, 256, 3) uint8, memory-mapped, and one `PackedCrop` per row.

    `without_face` are the files in which no face was found, `unreadable` has the reason by file.
    """

    pixels: npt.NDArray[np.uint8]
    rows: tuple[PackedCrop, ...]
    without_face: tuple[str, ...]
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def select(self, split: str, kind: MediaKind) -> list[PackedCrop]:
        """The rows of one split and kind, in order."""
        return [r for r in self.rows if r.split == split and r.kind == kind.value]

    def videos(self, split: str) -> dict[str, list[PackedCrop]]:
        """The rows of each video of a split, in time order, by file name."""
        found: dict[str, list[PackedCrop]] = {}
        for r in self.select(split, MediaKind.VIDEO):
            found.setdefault(r.file, []).append(r)
        return {name: sorted(rows, key=lambda r: r.frame) for name, rows in found.items()}


def pack_faces(samples: Sequence[Sample], folder: Path, detector: FaceDetector, *, frames: int = 16) -> Pack:
    """Detect, track and crop every sample into `folder`, or load what is already there.

    Args:
        samples: the files, however their paths are spelt; a begun pack of others starts anew. Labels, groups and splits
            are always those of this call, also for crops that an earlier one has packed.

    Raises:
        TrainingDataError: no sample has a face, or the folder holds a finished pack of other files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = places(s.path for s in samples)
    listing = folder / "samples.json"
    if not listing.is_file() or places(json.loads(listing.read_text(encoding="utf-8"))) != names:
        if (folder / "index.json").is_file():  # hours of work
            raise TrainingDataError(f"{folder} holds the faces of other files; name another folder, or delete it.")
        for old in folder.glob("part-*"):
            old.unlink()
        replace_file(listing, json.dumps(names).encode())
    if not (folder / "index.json").is_file():
        with bar("files searched for faces", len(samples)) as shown:
            for start in range(0, len(samples), CHUNK):
                part, chunk = folder / f"part-{start:06d}.npz", samples[start : start + CHUNK]
                if part.is_file():
                    shown.update(len(chunk))
                else:
                    _pack_chunk(chunk, part, detector, frames, shown.update)
        _join(folder)
    return _with_facts_of(samples, load_pack(folder))


def places(names: Iterable[str | Path]) -> list[str]:
    """Absolute paths, so that another spelling of a path is the same file; links are not followed."""
    return [os.path.abspath(name) for name in names]  # noqa: PTH100 (`resolve` would follow links)


def _with_facts_of(samples: Sequence[Sample], pack: Pack) -> Pack:
    """The pack with what the samples say of its crops now: a corrected label or another seed moves no pixel."""
    of = dict(zip(places(s.path for s in samples), samples, strict=True))
    held = zip(pack.rows, (of[place] for place in places(row.file for row in pack.rows)), strict=True)
    rows = tuple(dataclasses.replace(row, file=str(sample.path), **_said_of(sample)) for row, sample in held)
    return dataclasses.replace(pack, rows=rows)


def _said_of(sample: Sample) -> dict[str, Any]:
    return {name: getattr(sample, name) for name in ("label", "source", "group", "generator", "split")}


def load_pack(folder: Path) -> Pack:
    """A finished pack, its pixels memory-mapped."""
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    pixels = np.load(folder / "crops.npy", mmap_mode="r")
    rows = tuple(
        PackedCrop(**row | {"box": tuple(row["box"]), "landmarks": tuple(tuple(mark) for mark in row["landmarks"])})
        for row in index["rows"]
    )
    return Pack(pixels, rows, tuple(index["without_face"]), unreadable=index.get("unreadable", {}))


def _pack_chunk(
    samples: Sequence[Sample], part: Path, detector: FaceDetector, frames: int, done: Callable[[], object]
) -> None:
    """Pack some samples into one file; `done` is called for each."""
    pixels: list[Pixels] = []
    rows: list[dict[str, object]] = []
    without: list[str] = []
    unreadable: dict[str, str] = {}
    for sample in samples:
        done()
        try:
            found = _crops_of(sample, detector, frames)
        except MediaError as error:
            unreadable[str(sample.path)] = error.detail
            continue
        if not found:
            without.append(str(sample.path))
        for crop_pixels, row in found:
            rows.append(dataclasses.asdict(row))
            pixels.append(crop_pixels)
    scratch = part.with_suffix(".tmp")
    with scratch.open("wb") as stream:
        packed = np.stack(pixels) if pixels else np.zeros((0, PACK_PX, PACK_PX, 3), np.uint8)
        index = {"rows": rows, "without_face": without, "unreadable": unreadable}
        np.savez(stream, pixels=packed, index=np.array(json.dumps(index)))
    scratch.replace(part)


def _crops_of(sample: Sample, detector: FaceDetector, frames: int) -> list[tuple[Pixels, PackedCrop]]:
    limits = MediaLimits()
    if sample.kind is MediaKind.IMAGE:
        pictures = [decode_image(sample.path, limits)[0]]
    else:
        pictures = list(decode_video(sample.path, frames, limits)[0])
    tracks = track_faces([detector.detect(picture.pixels) for picture in pictures])
    if not tracks:
        return []
    main = tracks[0]
    out = []
    for sighting in main.sightings:
        picture = pictures[sighting.frame].pixels
        crop = crop_face(picture, sighting.face, size=PACK_PX)
        b = crop.box
        row = PackedCrop(
            row=-1,
            file=places([sample.path])[0],
            frame=sighting.frame,
            kind=sample.kind.value,
            **_said_of(sample),
            box=(b.x0, b.y0, b.x1, b.y1),
            landmarks=tuple((float(x), float(y)) for x, y in crop.landmarks),
            source_px=crop.source_px,
            detector_score=crop.detector_score,
            picture_px=min(picture.shape[:2]),
        )
        out.append((crop.pixels, row))
    return out


def _join(folder: Path) -> None:
    parts = sorted(folder.glob("part-*.npz"))
    indexes = []
    for part in parts:
        with np.load(part) as held:
            indexes.append(json.loads(str(held["index"])))
    total = sum(len(index["rows"]) for index in indexes)
    if total == 0:
        raise TrainingDataError("No face was found in any training file.")
    joined = np.lib.format.open_memmap(
        folder / "crops.npy", mode="w+", dtype=np.uint8, shape=(total, PACK_PX, PACK_PX, 3)
    )
    rows: list[dict[str, object]] = []
    for part, index in zip(parts, indexes, strict=True):
        with np.load(part) as held:
            joined[len(rows) : len(rows) + len(index["rows"])] = held["pixels"]
        rows += [{**row, "row": len(rows) + i} for i, row in enumerate(index["rows"])]
    joined.flush()
    without = [name for index in indexes for name in index["without_face"]]
    unreadable = {name: reason for index in indexes for name, reason in index.get("unreadable", {}).items()}
    index = {"rows": rows, "without_face": without, "unreadable": unreadable}
    replace_file(folder / "index.json", json.dumps(index).encode())
    for part in parts:
        part.unlink()


def find_twins(pack: Pack) -> dict[int, int]:
    """Rows of pictures that are also in a more protected split (training before calibration before validation), each
    with the row of its nearest twin there.
    """
    rows = {split: pack.select(split, MediaKind.IMAGE) for split in ("train", "calib", "val")}
    seen = {split: _look_at(pack, of_split) for split, of_split in rows.items()}
    twins: dict[int, int] = {}
    for split, protected in (("calib", ("val",)), ("train", ("calib", "val"))):
        others = [row for name in protected for row in rows[name]]
        if not others or not rows[split]:
            continue
        hashes = np.concatenate([seen[name][0] for name in protected])
        small = np.concatenate([seen[name][1] for name in protected])
        for row, own_hash, own in zip(rows[split], *seen[split], strict=True):
            near = np.flatnonzero(np.bitwise_count(hashes ^ own_hash) <= NEAR_BITS)
            if len(near):
                agreement = small[near] @ own
                best = int(agreement.argmax())
                if agreement[best] >= SAME:
                    twins[row.row] = others[near[best]].row
    return twins


def without_twins(pack: Pack, twins: Collection[int]) -> Pack:
    """The pack with the named crops moved out of their split; rows keep their numbers."""
    rows = tuple(dataclasses.replace(row, split=LEFT_OUT) if row.row in twins else row for row in pack.rows)
    return dataclasses.replace(pack, rows=rows)


def without_names(pack: Pack, names: Collection[str]) -> Pack:
    """The pack with all crops of these sources, generators and families moved out of training and calibration.

    Names are those of `families.is_of`. Validation keeps the crops: they are what is measured.

    Raises:
        TrainingDataError: no crop of training or calibration has one of the names.
    """
    wanted = set(names)
    found: set[str] = set()
    rows = []
    for row in pack.rows:
        own = {name for name in wanted if is_of(name, row.source, row.generator)}
        if own and row.split in ("train", "calib"):
            found |= own
            row = dataclasses.replace(row, split=LEFT_OUT)
        rows.append(row)
    if wanted - found:
        raise TrainingDataError(
            f"No training file is of the source, generator or family {', '.join(sorted(wanted - found))}."
        )
    return dataclasses.replace(pack, rows=tuple(rows))


def _look_at(pack: Pack, rows: Sequence[PackedCrop]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.float32]]:
    """(N,) perceptual hashes and (N, 1024) small grey versions with mean 0 and length 1."""
    hashes, small = np.zeros(len(rows), np.uint64), np.zeros((len(rows), SMALL_PX**2), np.float32)
    for i, row in enumerate(rows):
        pixels = np.asarray(pack.pixels[row.row])
        hashes[i] = perceptual_hash(pixels)
        grey = cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (SMALL_PX, SMALL_PX), interpolation=cv2.INTER_AREA)
        flat = grey.astype(np.float32).ravel() - grey.mean()
        small[i] = flat / max(float(np.linalg.norm(flat)), 1e-6)
    return hashes, small
