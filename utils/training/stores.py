"""The feature stores of a training: which views of which split, and the ViT's tokens of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from models.vision_transformer import ViTExpert
from utils.evaluation.datasets import is_of
from utils.training.broad import CLEAN, broad_views
from utils.training.clips import clean_clips
from utils.training.crop_set import Pack, PackedCrop
from utils.training.face_swap import plan_swaps
from utils.training.features import Features, FeatureStore, Stored, TorchFeaturizer, quick_featurizer
from utils.training.norms import some_frames
from utils.training.plan import TrainingPlan
from utils.training.portraits import plan_portraits
from utils.training.super_resolution import plan_redrawn
from utils.training.views import SEED_STEP, View, plan_views
from utils.types import MediaKind

ROUND_STEP = 10
"""Distance between the seeds of two rounds of views."""


def rows_to_draw(pack: Pack, plan: TrainingPlan) -> list[PackedCrop]:
    """What training draws itself beside: training pictures and some frames of training clips."""
    return [*pack.select("train", MediaKind.IMAGE), *some_frames(pack, plan.frames_per_clip, plan.vit.seed)]


def make_stores(
    pack: Pack, run: Path, plan: TrainingPlan, reference: ViTExpert, *, device: str
) -> dict[str, FeatureStore]:
    """Features of all splits, as `train`, `train_video`, `calib`, `calib_hard`, `val`, `calib_clips`, `val_clips`.

    Further rounds of the training views are `train_2`, `train_video_2` and so on; `train_redrawn` are real crops beside
    themselves, drawn again, `train_portraits` real crops beside people who do not exist, `train_swapped`
    beside themselves with another's face.
    """
    views = broad_views(pack, plan) if plan.views else _views_per_class(pack, plan)
    exact = TorchFeaturizer(reference, device, tiny=plan.tiny)
    quick = quick_featurizer(reference, device, tiny=plan.tiny)
    stores = {}
    for name, of_store in views.items():
        if not of_store:
            continue
        store = FeatureStore(run / "features" / name, of_store)
        featurizer = quick if plan.views or name.startswith("train") else exact
        store.extract(pack, featurizer)
        stores[name] = store
    return stores


def _views_per_class(pack: Pack, plan: TrainingPlan) -> dict[str, list[View]]:
    """The views of all stores where a number per source and label says how many."""
    image = MediaKind.IMAGE
    few, everything = plan.calib_per_class, 10**9
    coded = plan.h264
    views: dict[str, list[View]] = {}
    for number in range(max(plan.rounds, plan.clip_rounds)):
        views |= _round_views(pack, plan, number)
    if pack.redrawn:
        views["train_redrawn"] = plan_redrawn(pack, pack.rows, seed=7 + SEED_STEP * plan.vit.seed, h264=coded)
    if pack.portraits:
        views["train_portraits"] = plan_portraits(pack, pack.rows, seed=8 + SEED_STEP * plan.vit.seed, h264=coded)
    if plan.swapped:
        rows, seed = rows_to_draw(pack, plan), 9 + SEED_STEP * plan.vit.seed
        views["train_swapped"] = plan_swaps(pack, rows, plan.swapped, seed=seed, h264=coded)
    for name, own in views.items():  # what is made here belongs to families, too; the pack has lost the rest
        views[name] = [v for v in own if not any(is_of(left, v.source, v.generator) for left in plan.leave_out)]
    return views | {
        "calib": plan_views(pack.select("calib", image), per_class=few, blends=0, seed=2, clean=True),
        "calib_hard": plan_views(pack.select("calib", image), per_class=few // 3, blends=few // 15, seed=3, h264=coded),
        "val": plan_views(pack.select("val", image), per_class=everything, blends=0, seed=4, clean=True, balance=False),
        "calib_clips": clean_clips(pack, "calib"),
        "val_clips": clean_clips(pack, "val"),
    }


def _round_views(pack: Pack, plan: TrainingPlan, number: int) -> dict[str, list[View]]:
    """The views of one round of training, from 0, by the name of their store."""
    own = SEED_STEP * plan.vit.seed + ROUND_STEP * number
    suffix = f"_{number + 1}" if number else ""
    clip_rounds = plan.clip_rounds or plan.rounds
    parts = {
        "train": (pack.select("train", MediaKind.IMAGE), 1, plan.h264, plan.rounds),
        "train_video": (some_frames(pack, plan.frames_per_clip, own), 6, plan.h264_clips, clip_rounds),
    }
    return {
        name + suffix: plan_views(
            rows, per_class=plan.per_class, blends=plan.blends, seed=seed + own, h264=coded, matched=plan.matched
        )
        for name, (rows, seed, coded, rounds) in parts.items()
        if number < rounds
    }


def training_views(stores: Mapping[str, Stored]) -> Features:
    """All rounds of training pictures and frames as one store, without those that only the ViT's head learns from."""
    return Features([store for name, store in stores.items() if name.startswith("train") and name != CLEAN])


def head_views(stores: Mapping[str, Stored], plan: TrainingPlan) -> Features:
    """What the ViT's head learns from: the training views with some of their self-blends."""
    if plan.views:
        return Features([store for name, store in stores.items() if name.startswith("train")])
    joined = training_views(stores)
    drawn = np.random.default_rng([plan.vit.seed, 15]).random(len(joined.views))
    blended = np.array([view.blended for view in joined.views], bool)
    return Features([joined], ~blended | (drawn < plan.head_blends))
