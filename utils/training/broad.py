"""A training over many sources, most of them small: which views, how much each counts, and what a stranger would get.

Each source counts by the root of its size, real and fake alike. A head that has not seen a source and its relatives
scores that source's pictures; temperature, threshold and band come from these scores, since those of known sources
promise too much.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from models.vision_transformer import ViTExpert
from utils.evaluation.datasets import CLIPS_PREFIX
from utils.tensors import Arrays, load_into
from utils.training.clips import clean_clips
from utils.training.crop_set import Pack, PackedCrop
from utils.training.experts import new_vit, train_vit_head
from utils.training.features import Features, Stored
from utils.training.loop import Recipe
from utils.training.norms import some_frames
from utils.training.plan import TrainingPlan
from utils.training.views import SEED_STEP, View, plan_balanced, plan_views
from utils.types import MediaKind

Array = npt.NDArray[np.float64]
CLEAN = "train_clean"
"""Store of training pictures as they come; the ViT's head learns from them, students do not."""
CLEAN_SHARE, BLENDS_SHARE = 0.35, 0.08
"""How much pictures as they come, and self-blends, count of all that the ViT's head learns from."""
FRAMES_PREFIX = "frames_"
"""Begins the name of a source of pictures that were taken from clips."""


def broad_views(pack: Pack, plan: TrainingPlan) -> dict[str, list[View]]:
    """The views of all stores, by the store's name."""
    train, calib, val = (pack.select(split, MediaKind.IMAGE) for split in ("train", "calib", "val"))
    own, coded, everything = SEED_STEP * plan.vit.seed, plan.h264, 10**9
    frames = some_frames(pack, plan.frames_per_clip, own)

    def clean(rows: Sequence[PackedCrop], most: int, seed: int) -> list[View]:
        return plan_views(rows, per_class=most, blends=0, seed=seed, clean=True, balance=False)

    return {
        "train": plan_balanced(train, plan.views, seed=1 + own, h264=coded),
        "train_video": plan_balanced(frames, plan.beside, seed=6 + own, h264=plan.h264_clips, most=2),
        "train_blends": plan_balanced(train, plan.beside, seed=7 + own, h264=coded, blended=True),
        CLEAN: clean(train, plan.clean_per_class, 5 + own),
        "calib": clean(calib, plan.calib_per_class, 2),
        "calib_hard": plan_balanced(calib, 6 * plan.calib_per_class, seed=3, h264=coded),
        "val": clean(val, everything, 4),
        "calib_clips": clean_clips(pack, "calib"),
        "val_clips": clean_clips(pack, "val"),
    }


def head_weights(views: Sequence[View], rows: Sequence[PackedCrop]) -> npt.NDArray[np.float32]:
    """(N,) weights with mean 1: real and fake alike, pictures as they come by the root of their source's size.

    Processed views are drawn by that root already. Args: the views, and the rows of the pack that they are of.
    """
    clean, blended = (np.array([getattr(view, name) for view in views], bool) for name in ("clean", "blended"))
    labels = np.array([view.label for view in views])
    cells = np.array([f"{rows[view.row].source}|{view.label}" for view in views])
    weights = np.ones(len(views))
    if clean.any():
        _, codes, counts = np.unique(cells[clean], return_inverse=True, return_counts=True)
        weights[clean] = 1 / np.sqrt(counts[codes])
    rest = ~clean & ~blended
    for chosen, share in ((clean, CLEAN_SHARE), (blended, BLENDS_SHARE), (rest, 1 - CLEAN_SHARE - BLENDS_SHARE)):
        if chosen.any():
            weights[chosen] *= share / weights[chosen].sum()
    for label in (0, 1):
        if (labels == label).any():
            weights[labels == label] /= weights[labels == label].sum()
    return np.asarray(weights * len(weights) / weights.sum(), np.float32)


def relatives(source: str) -> str:
    """The first word of a source's name; what shares it shares people, a studio or a generator, and leaves with it.

    `video:resyncer_page`, `frames_resyncer_page` and `frames_resyncer_back` are all `resyncer`.
    """
    return source.removeprefix(CLIPS_PREFIX).removeprefix(FRAMES_PREFIX).split("_")[0]


def folds_of(names: Sequence[str], count: int) -> dict[str, int]:
    """A fold from 0 to `count` - 1 for each name, the frequent ones spread."""
    known, sizes = np.unique(list(names), return_counts=True)
    order = sorted(range(len(known)), key=lambda i: (-sizes[i], known[i]))
    there_and_back = [*range(count), *reversed(range(count))]
    return {str(known[i]): there_and_back[place % (2 * count)] for place, i in enumerate(order)}


def of_source(view: View, rows: Sequence[PackedCrop]) -> str:
    """What is left out with a source."""
    return relatives(rows[view.row].source)


def of_generator(view: View, rows: Sequence[PackedCrop]) -> str:
    """What is left out with a generator: its fakes alone. Real ones and self-blends are of none."""
    return "" if view.blended or not view.label else view.generator


@dataclass(frozen=True)
class Unseen:
    """Raw logits of heads that have not seen something.

    Args:
        fold: the head, by the name of what it has not seen.
        logits: (folds, N) of each store, by its name; NaN where nothing could be left out.
        own: (N,) of each store: the fold of the view's own name, -1 for none.
    """

    fold: Mapping[str, int]
    logits: Mapping[str, Array]
    own: Mapping[str, npt.NDArray[np.int64]]

    def of_own(self, store: str) -> Array:
        """(N,) each view's logit by the head that has not seen what the view is of; NaN where it is of nothing."""
        own = self.own[store]
        picked = self.logits[store][own, np.arange(len(own))]
        return np.where(own < 0, np.nan, picked)


def cross_fitted(
    train: Stored,
    calib: Stored,
    held: Mapping[str, Stored],
    rows: Sequence[PackedCrop],
    recipe: Recipe,
    folder: Path,
    *,
    folds: int,
    name_of: Callable[[View, Sequence[PackedCrop]], str] = of_source,
    start: Arrays | None = None,
    learned: Collection[str] = (),
    tiny: bool = False,
) -> Unseen:
    """Train a head without each part of the sources, or of the generators, and score everything with it.

    What the start has learned is left out in folds of its own, whose heads begin from scratch.

    Args:
        train: views that heads are trained on.
        calib: views that choose the epoch.
        held: stores to score, by name.
        rows: of the pack; what the views are of.
        recipe: of the head.
        folder: for checkpoints.
        folds: into how many parts the names are divided; one head for each.
        name_of: what is left out with a view; empty for nothing.
        start: weights of a head to go on from; None starts from scratch.
        learned: sources that the start has seen.
        tiny: train the tiny variant.
    """
    views = [view for store in (train, calib, *held.values()) for view in store.views]
    seen = {name_of(view, rows) for view in views if rows[view.row].source in learned} - {""}
    names = [name for view in views if (name := name_of(view, rows))]
    scratch = folds // 3 if seen and start is not None else 0
    fold = folds_of([name for name in names if name in seen], scratch) if scratch else {}
    others = folds_of([name for name in names if name not in fold], folds - scratch)
    fold |= {name: scratch + number for name, number in others.items()}

    def numbers(store: Stored) -> npt.NDArray[np.int64]:
        return np.array([fold.get(name_of(view, rows), -1) for view in store.views], np.int64)

    logits = {name: np.full((folds, len(store.views)), np.nan) for name, store in held.items()}
    for number in range(folds):
        kept, chooses = (Features([store], numbers(store) != number) for store in (train, calib))
        if number not in fold.values() or any(len(np.unique(store.labels())) < 2 for store in (kept, chooses)):
            continue  # nothing to leave out, or all there is of a class
        expert = new_vit(tiny=tiny, seed=recipe.seed)
        if start is not None and number >= scratch:
            load_into(expert, start, what="vit", strict=False)
        weights = head_weights(kept.views, rows)
        own = folder / f"{name_of.__name__}-{number}"
        train_vit_head(kept, chooses, recipe, own, expert=expert, weights=weights)
        for name, store in held.items():
            logits[name][number] = head_logits(expert, store)
    return Unseen(fold, logits, {name: numbers(store) for name, store in held.items()})


def head_logits(expert: ViTExpert, store: Stored) -> Array:
    """(N,) raw logits of a head on stored tokens."""
    tokens, out = store.load("tokens"), []
    with torch.inference_mode():
        for low in range(0, len(tokens), 1024):
            part = torch.from_numpy(np.asarray(tokens[low : low + 1024], np.float32))
            out.append(expert.head(part).logit.double().numpy())
    return np.concatenate(out)
