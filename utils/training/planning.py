"""How much is trained, and how long: the plan of a whole training, two smaller ones, and plans from files. And which
views that training sees, and how much each counts: drawn from a seed alone, so that they can be drawn again.

Many sources, most of them small: each counts by the root of its size, so that neither many tiny ones nor a large one
rule; real and fake alike. Every view of training goes through ordinary processing first (`augment`), so that sizes,
filters and coding say nothing of the label.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.cards import EXPERT_NAMES
from utils.errors import TrainingDataError
from utils.training.crop_set import Pack, PackedCrop
from utils.training.loop import Recipe
from utils.training.views import View, is_coded
from utils.types import MediaKind


@dataclass(frozen=True)
class TrainingPlan:
    """What is trained how long.

    Args:
        views: about how many processed views of the training pictures are drawn, each source by the root of its size,
            see `planning`. Half a second each on one processor core, a tenth where it multiplies bfloat16 matrices.
        beside: about how many views of clips' frames, and how many self-blends, are drawn beside them.
        clean_per_class: most training pictures per source and label that are also seen as they come.
        smooth_per_class: the same of those that are also seen after noise reduction alone.
        recoded_per_source: most real training pictures of a source that are decoded again, where an autoencoder is
            given; see `traces`.
        folds: parts that the sources, and the generators, are divided into, each of them left out in turn; see
            `strangers`. 0 leaves nothing out.
        calib_per_class: most calibration pictures per source and label.
        frames_per_clip: frames of a training clip that the image experts learn from.
        clip_blends: self-blended fakes made of each real training clip for the LSTM.
        start: version whose CNN, ResNeXt-50 and ViT head go on learning; empty to train them from scratch.
        keep: take CNN, ResNeXt-50 and LSTM of `start` as they are.
        h264: share of the augmented crops that are coded as a video instead of as a JPEG.
        h264_clips: the same share of the augmented clips and of their frames.
        leave_out: sources and generators that nothing is trained or calibrated on; validation keeps them.
    """

    views: int = 14000
    beside: int = 1500
    clean_per_class: int = 500
    smooth_per_class: int = 100
    recoded_per_source: int = 30
    folds: int = 12
    calib_per_class: int = 100
    frames_per_clip: int = 6
    clip_blends: int = 2
    cnn: Recipe = field(
        default_factory=lambda: Recipe(epochs=24, lr=1.5e-3, weight_decay=0.02, average=0.997, patience=8)
    )
    resnext: Recipe = field(default_factory=lambda: Recipe(epochs=12, lr=1e-3, patience=5))
    vit: Recipe = field(default_factory=lambda: Recipe(epochs=15, batch=64, lr=1e-3, weight_decay=0.5, patience=6))
    lstm: Recipe = field(default_factory=lambda: Recipe(epochs=20, batch=16, lr=3e-4, weight_decay=0.1, patience=6))
    start: str = ""
    keep: bool = False
    h264: float = 0.3
    h264_clips: float = 0.7
    leave_out: tuple[str, ...] = ()
    tiny: bool = False


def read_plan(path: Path) -> TrainingPlan:
    """The plan of a recipe: a TOML file with fields of `TrainingPlan`, and a table for each network.

    Raises:
        TrainingDataError: it cannot be read, or names something that no plan has.
    """
    try:
        with path.open("rb") as stream:
            told = tomllib.load(stream)
        plan = TrainingPlan()
        for name in EXPERT_NAMES:
            told[name] = dataclasses.replace(getattr(plan, name), **told.get(name, {}))
        return dataclasses.replace(plan, **told)
    except (OSError, tomllib.TOMLDecodeError, TypeError, ValueError) as error:
        raise TrainingDataError(f"The recipe {path} cannot be used: {error}.") from error


def quick_plan() -> TrainingPlan:
    """Minutes on a CPU: five epochs on a subset."""
    return TrainingPlan(
        views=1200,
        beside=120,
        clean_per_class=60,
        smooth_per_class=20,
        folds=4,
        calib_per_class=60,
        frames_per_clip=2,
        clip_blends=1,
        cnn=Recipe(epochs=5, lr=1.5e-3, average=0.98),
        resnext=Recipe(epochs=5, lr=1e-3, average=0.98),
        vit=Recipe(epochs=5, batch=64, lr=5e-4, weight_decay=0.2),
        lstm=Recipe(epochs=5, batch=8, lr=3e-4, weight_decay=0.1),
    )


def tiny_plan() -> TrainingPlan:
    """Seconds, with the tiny networks: for trying the way through, not for use."""
    few = Recipe(epochs=2, batch=8, lr=3e-3, average=0.5)
    return TrainingPlan(
        views=80,
        beside=20,
        clean_per_class=20,
        smooth_per_class=8,
        folds=0,
        calib_per_class=20,
        frames_per_clip=2,
        clip_blends=1,
        cnn=few,
        resnext=few,
        vit=few,
        lstm=few,
        tiny=True,
    )


PLANS = {"whole": TrainingPlan, "quick": quick_plan, "tiny": tiny_plan}
"""What makes a plan, by how much is trained."""


SEED_STEP = 100_000
"""Distance between the seeds of two runs: what is added for each unit of `--seed`."""
CLEAN, FRAMES, SMOOTH = "train_clean", "train_frames", "train_smooth"
"""Stores of training pictures, and of clips' frames, as they come, and of pictures after noise reduction alone; the
ViT's head learns from them, students do not."""
RECODED = "recoded"
"""Store, and made-up generator, of real training pictures that an autoencoder decoded again; see `traces`."""
CLEAN_SHARE, BLENDS_SHARE, SMOOTH_SHARE = 0.5, 0.16, 0.1
"""How much what is as it comes counts of the real ones and of the fakes, self-blends of the fakes, and of either what
went through noise reduction alone. Traces of generators are finest in what is as it comes; without real photos after
noise reduction beside them, it is taken for such a trace."""
ALL = 10**9


def planned(pack: Pack, plan: TrainingPlan) -> dict[str, list[View]]:
    """The views of all stores, by the store's name."""
    train, calib, val = (pack.select(split, MediaKind.IMAGE) for split in ("train", "calib", "val"))
    own = SEED_STEP * plan.vit.seed
    clean = plan_clean(train, per_class=plan.clean_per_class, seed=5 + own)
    originals = {view.row for view in clean if not view.label}
    return {
        **drawn_views(pack, plan, plan.views, plan.beside, seed=own),
        CLEAN: clean,
        SMOOTH: [
            replace(view, processed=True) for view in plan_clean(train, per_class=plan.smooth_per_class, seed=9 + own)
        ],
        RECODED: [
            replace(view, label=1, generator=RECODED)
            for view in plan_clean(
                [row for row in train if row.row in originals], per_class=plan.recoded_per_source, seed=19 + own
            )
        ],
        FRAMES: plan_clean(some_frames(pack, plan.frames_per_clip, own), per_class=ALL, seed=8 + own),
        "calib": plan_clean(calib, per_class=plan.calib_per_class, seed=2),
        "calib_hard": plan_balanced(calib, 6 * plan.calib_per_class, seed=3, h264=plan.h264),
        "val": plan_clean(val, per_class=ALL, seed=4),
        "calib_clips": clean_clips(pack, "calib"),
        "val_clips": clean_clips(pack, "val"),
    }


def drawn_views(pack: Pack, plan: TrainingPlan, count: int, beside: int, *, seed: int) -> dict[str, list[View]]:
    """About `count` processed views of training pictures, and `beside` each of clips' frames and of self-blends."""
    train, frames = pack.select("train", MediaKind.IMAGE), some_frames(pack, plan.frames_per_clip, seed)
    return {
        "train": plan_balanced(train, count, seed=1 + seed, h264=plan.h264),
        "train_video": plan_balanced(frames, beside, seed=6 + seed, h264=plan.h264_clips, most=2),
        "train_blends": plan_balanced(train, beside, seed=7 + seed, h264=plan.h264, blended=True),
    }


def some_frames(pack: Pack, count: int, seed: int) -> list[PackedCrop]:
    """At most `count` crops of each training clip, drawn at random."""
    rng = np.random.default_rng(5 + seed)
    return [clip[int(i)] for clip in pack.videos("train").values() for i in rng.permutation(len(clip))[:count]]


def plan_balanced(
    rows: Sequence[PackedCrop], count: int, *, seed: int, blended: bool = False, h264: float = 0.0, most: int = 6
) -> list[View]:
    """About `count` processed views, each source by the root of its size: neither many tiny ones nor a large one rule.

    Within a source real and fake alike, where it has both; within these evenly over generators, and within a generator
    over groups (people, clips).

    Args:
        count: of all views; fewer, where sources are too small.
        seed: of the draw and, with the position, of each view.
        blended: self-blends of the real crops instead, and nothing else.
        h264: share of the views, drawn without regard to the label, that are coded as a video.
    """
    rng = np.random.default_rng(seed)
    by_source: dict[str, list[PackedCrop]] = {}
    for row in rows:
        if not (blended and row.label):
            by_source.setdefault(row.source, []).append(row)
    roots = sum(len(own) ** 0.5 for own in by_source.values())
    views: list[View] = []
    for source, own in sorted(by_source.items()):
        parts = [part for label in (0, 1) if (part := [row for row in own if row.label == label])]
        for part in parts:
            for crop in _drawn_evenly(part, count * len(own) ** 0.5 / roots / len(parts), most, rng):
                made, label = ("self-blend", 1) if blended else (crop.generator, crop.label)
                views.append(View(crop.row, label, family(source), made, 0, blended=blended, processed=True))
    return _seeded(views, rng, seed, h264)


def _drawn_evenly(crops: Sequence[PackedCrop], count: float, most: int, rng: np.random.Generator) -> list[PackedCrop]:
    """About `count` crops, evenly over generators and within them over groups, none more than `most` times."""
    of_generator: dict[str, dict[str, int]] = {}
    for crop in crops:
        groups = of_generator.setdefault(crop.generator, {})
        groups[crop.group] = groups.get(crop.group, 0) + 1
    shares = np.array(
        [1 / (len(of_generator[c.generator]) * of_generator[c.generator][c.group]) for c in crops], np.float64
    )
    wanted = np.zeros(len(crops))
    for _ in range(8):  # what a crop may not give, the others give
        free = wanted < most
        if not free.any():
            break
        wanted[free] += (count - wanted.sum()) * shares[free] / shares[free].sum()
        wanted = np.minimum(wanted, most)
    times = np.floor(wanted + rng.random(len(crops))).astype(int)
    return [crop for crop, number in zip(crops, times, strict=True) for _ in range(min(number, most))]


def plan_clean(rows: Sequence[PackedCrop], *, per_class: int, seed: int) -> list[View]:
    """At most `per_class` crops per source and label as they come, none of them twice."""
    rng = np.random.default_rng(seed)
    by_source: dict[str, tuple[list[PackedCrop], list[PackedCrop]]] = {}
    for row in rows:
        by_source.setdefault(family(row.source), ([], []))[row.label].append(row)
    views = [
        View(crops[int(i)].row, label, source, crops[int(i)].generator, 0, clean=True)
        for source, both in sorted(by_source.items())
        for label, crops in enumerate(both)
        if crops
        for i in rng.permutation(len(crops))[:per_class]
    ]
    return _seeded(views, rng, seed, 0.0)


def plan_clip(
    frames: Sequence[PackedCrop], *, seed: int, clean: bool, blended: bool, unsteady: bool, h264: bool = False
) -> list[View]:
    """Views of one clip's frames in time order, all with the same seed.

    Args:
        blended: make a self-blended fake clip of it; the clip must be real.
    """
    made = "self-blend clip" if blended else frames[0].generator
    label = 1 if blended else frames[0].label
    return [View(f.row, label, f.source, made, seed, blended, clean, unsteady, h264) for f in frames]


def clean_clips(pack: Pack, split: str) -> list[View]:
    """Views of all clips of a split, without augmentation, one clip after another."""
    return [
        view
        for i, (_, frames) in enumerate(sorted(pack.videos(split).items()))
        for view in plan_clip(frames, seed=i, clean=True, blended=False, unsteady=False)
    ]


def _seeded(views: Sequence[View], rng: np.random.Generator, seed: int, h264: float) -> list[View]:
    """Views in an order drawn at random, each with a seed of its own, and a share of them coded as a video."""
    shuffled = (views[int(j)] for j in rng.permutation(len(views)))
    own = [replace(view, seed=seed * 1_000_003 + k) for k, view in enumerate(shuffled)]
    return [replace(view, h264=is_coded(view.seed, h264)) for view in own]


def family(source: str) -> str:
    """The many small sources of clips count as one: most hold one class only."""
    return "video" if source.startswith("video:") else source


def head_weights(views: Sequence[View], rows: Sequence[PackedCrop]) -> npt.NDArray[np.float32]:
    """(N,) weights with mean 1: real and fake alike, pictures as they come by the root of their source's size.

    Processed views are drawn by that root already. Args: the views, and the rows of the pack that they are of.
    """
    clean, blended, edited = (
        np.array([getattr(view, name) for view in views], bool) for name in ("clean", "blended", "processed")
    )
    clean, smooth = clean & ~edited, clean & edited
    labels = np.array([view.label for view in views])
    cells = np.array([f"{rows[view.row].source}|{view.label}" for view in views])
    weights = np.ones(len(views))
    for part in (clean, smooth):
        _, codes, counts = np.unique(cells[part], return_inverse=True, return_counts=True)
        weights[part] = 1 / np.sqrt(counts[codes])
    for label in (0, 1):
        own, rest = labels == label, 1.0
        for part, wanted in ((blended, BLENDS_SHARE * label), (clean, CLEAN_SHARE), (smooth, SMOOTH_SHARE)):
            share = wanted if (part & own).any() else 0.0
            rest -= share
            if share:
                weights[part & own] *= share / weights[part & own].sum()
        if (other := own & ~(blended | clean | smooth)).any():
            weights[other] *= rest / weights[other].sum()
        if own.any():
            weights[own] /= weights[own].sum()
    return np.asarray(weights * len(weights) / weights.sum(), np.float32)
