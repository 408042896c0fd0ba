"""Crops of scikit-image's astronaut as a pack in memory, and a tiny lineage that learns from made-up features."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage.data import astronaut

from utils.faces.crops import PACK_PX
from utils.feedback.cached_judge import load_parts, probabilities
from utils.feedback.feature_set import CachedItem, FeatureSet
from utils.feedback.quarantine import LearningItem
from utils.training.crop_set import Pack, PackedCrop
from utils.training.publishing import write_lineage
from utils.types import Floats, Pixels
from utils.weights import Version, frozen_fingerprint, verify_version

FACE_BOX = (181.5, 58.2, 269.9, 177.8)
LANDMARKS = np.array([[203.2, 101.7], [247.0, 104.5], [223.3, 125.1], [203.4, 142.3], [241.3, 144.4]], np.float32)


def jittered(rng: np.random.Generator) -> tuple[Pixels, tuple[float, float, float, float], Floats]:
    """A crop of the face as a pack holds it, its box and its landmarks, all pixels of the crop."""
    x0, y0, x1, y1 = FACE_BOX
    side = 1.3 * (y1 - y0) * rng.uniform(0.97, 1.06)
    centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2]) + rng.uniform(-5, 5, 2)
    factor = PACK_PX / side
    matrix = np.array([[factor, 0, PACK_PX / 2 - factor * centre[0]], [0, factor, PACK_PX / 2 - factor * centre[1]]])
    crop = cv2.warpAffine(astronaut(), matrix, (PACK_PX, PACK_PX), borderMode=cv2.BORDER_REFLECT)
    lit = crop * rng.uniform(0.7, 1.1, 3) + rng.uniform(-15, 15)
    box = tuple(float(v * factor + matrix[i % 2, 2]) for i, v in enumerate(FACE_BOX))
    marks = (LANDMARKS * factor + matrix[:, 2]).astype(np.float32)
    return np.clip(lit, 0, 255).astype(np.uint8), box, marks


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch computes with one thread: the same bits, and no waiting for others on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make_pack() -> Callable[..., Pack]:
    """Makes a pack of pictures and clips; fakes are tinted, so that there is something to learn."""

    def make(pictures: int = 24, clips: int = 0, frames: int = 6, source: str = "shots", seed: int = 0) -> Pack:
        rng = np.random.default_rng(seed)
        pixels, rows = [], []

        def add(kind: str, item: int, frame: int, label: int, split: str, shared: np.random.Generator) -> None:
            crop, box, marks = jittered(shared)
            if label:
                crop = np.clip(crop * np.array([1.25, 0.8, 0.9]), 0, 255).astype(np.uint8)
            pixels.append(crop)
            rows.append(
                PackedCrop(
                    row=len(rows), file=f"{kind}-{item}", frame=frame, kind=kind, label=label,
                    source=source if kind == "image" else f"video:{source}", group=f"{kind}-group-{item}",
                    generator="tint" if label else "-", split=split, box=box,
                    landmarks=tuple((float(x), float(y)) for x, y in marks), source_px=100.0 + item,
                    detector_score=0.9, picture_px=200,
                )
            )  # fmt: skip

        splits = ("train", "train", "calib", "val")
        for item in range(pictures):
            add("image", item, 0, item % 2, splits[(item // 2) % 4], rng)
        for item in range(clips):
            for frame in range(frames):
                add("video", item, frame, item % 2, splits[(item // 2) % 4], np.random.default_rng([seed, item]))
        return Pack(np.stack(pixels), tuple(rows), ())

    return make


# learning from feedback

TAPS, WIDTH, QUALITY = 4, 48, 4
STRANGE = np.random.default_rng(99).normal(0, 1, (TAPS, WIDTH)).astype(np.float32)
"""What all faces of a new source have in common."""


def made_up(version: Version, count: int, seed: int, sources: tuple[str, ...], *, wrong: float = 0.15) -> FeatureSet:
    """Features on which a version is right, and surely so, but for a share of the items."""
    rng = np.random.default_rng(seed)
    count, wanted = 3 * count, count
    logits = np.zeros((count, 4), np.float32)
    logits[:, 3] = np.nan
    features = FeatureSet(
        tokens=rng.normal(0, 1, (count, TAPS, WIDTH)).astype(np.float16),
        starts=np.arange(count + 1),
        logits=logits,
        quality=rng.normal(0, 1, (count, QUALITY)).astype(np.float32),
        labels=np.zeros(count, np.float32),
        sources=tuple(sources[i % len(sources)] for i in range(count)),
        generators=("-",) * count,
        groups=tuple(f"g{seed}-{i}" for i in range(count)),
        keys=tuple(f"k{seed}-{i}" for i in range(count)),
    )
    order = np.argsort(probabilities(load_parts(version), features), kind="stable")
    labels = np.zeros(count, bool)
    labels[order[count // 2 :]] = True
    labels ^= rng.random(count) < wrong
    sure = np.sort(np.concatenate([order[: wanted // 2], order[-(wanted // 2) :]]))
    return replace(features, labels=labels.astype(np.float32)).select(sure)


@dataclass(frozen=True)
class TinyLineage:
    """A root with a tiny version, its golden set and replay buffer."""

    root: Path
    history: Path
    features: Path

    @property
    def base(self) -> Version:
        return verify_version(self.root, "tiny")

    def item(self, number: int, label: int, *, strange: bool = True, source: str = "feedback") -> LearningItem:
        """An accepted medium; strange ones share something that no training item has."""
        rng = np.random.default_rng([number, 5])
        tokens = rng.normal(0, 1, (1, TAPS, WIDTH)) * (0.3 if strange else 1) + (2 * STRANGE if strange else 0)
        path = self.features / f"{number}.npz"
        logits = np.array([0, 0, 0, np.nan], np.float32)
        quality = np.zeros(QUALITY, np.float32)
        CachedItem(tokens.astype(np.float16), logits, quality, frozen_fingerprint(self.base)).save(path)
        return LearningItem(f"{number:064d}", label, path, source)  # type: ignore[arg-type]

    def corrections(self, count: int = 12) -> list[LearningItem]:
        """Strange media with the label that the base does not give them."""
        items = [self.item(i, 0) for i in range(count)]
        sets = [CachedItem.load(i.features).as_features(label=0, source="x", key=i.media_sha256) for i in items]
        mean = np.mean([probabilities(load_parts(self.base), s)[0] for s in sets])
        return [self.item(i, int(mean < 0.5)) for i in range(count)]


@pytest.fixture
def lineage(tmp_path: Path, tiny_root: Path, make_lineage: Callable[[Path], None]) -> TinyLineage:
    """A tiny lineage that a test may change."""
    root = Path(shutil.copytree(tiny_root, tmp_path / "models", symlinks=True))
    make_lineage(root)
    (tmp_path / "features").mkdir()
    return TinyLineage(root, tmp_path / "history.jsonl", tmp_path / "features")


@pytest.fixture(scope="session")
def make_lineage() -> Callable[[Path], None]:
    """Writes golden set and replay buffer for the version `tiny` of a root."""

    def make(root: Path) -> None:
        version = verify_version(root, "tiny")
        golden = made_up(version, 240, 1, ("alpha", "beta"), wrong=0.05)
        write_lineage(root, "tiny", golden, made_up(version, 160, 2, ("alpha", "beta"), wrong=0.05))

    return make
