"""What happens on what training never saw: heads of the ViT that have not seen a source or a generator.

Sources are divided into folds, relatives together, and generators likewise; a head is trained without each fold. With a
source its self-blends leave, with a generator only its own fakes. Gate, temperature, threshold and band come from such
scores of calibration pictures, since those of known sources promise too much; the card shows those of validation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit

from models.cards import EXPERT_NAMES
from models.gating import Gate
from models.vision_transformer import ViTExpert, build_vit
from utils.detection.calibration import Calibration
from utils.evaluation.figures import rounded
from utils.evaluation.layouts import CLIPS_PREFIX
from utils.evaluation.score_file import ScoreTable
from utils.metrics import auc, bootstrap, ece, false_alarm_rate, miss_rate
from utils.tensors import Arrays, load_into
from utils.training.crop_set import PackedCrop
from utils.training.experts import HeadAxes, new_network, train_vit_head
from utils.training.features import Features, Stored
from utils.training.gate_fit import gate_logits
from utils.training.loop import Recipe
from utils.training.planning import head_weights
from utils.training.traces import Traces
from utils.training.views import View

Array = npt.NDArray[np.float64]
FRAMES_PREFIX = "frames_"
"""Begins the name of a source of pictures that were taken from clips."""
LEAST = 8
"""Sources with fewer real or fake validation pictures, and generators with fewer, have no figures."""
ROUNDS = 300


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
    traces: Traces | None = None,
    tiny: bool = False,
) -> Unseen:
    """Train a head without each part of the sources, or of the generators, and score everything with it.

    What the start has learned is left out in folds of its own, whose heads begin from scratch.

    Args:
        train: views that heads are trained on.
        calib: views that choose the epoch.
        folds: into how many parts the names are divided; one head for each.
        name_of: what is left out with a view; empty for nothing.
        start: weights of a head to go on from; None starts from scratch.
        learned: sources that the start has seen.
        traces: what is added to every head; it knows no fake.
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
    axes = HeadAxes.fitted(train.load("tokens"))  # knows no label
    for number in range(folds):
        kept, chooses = (Features([store], numbers(store) != number) for store in (train, calib))
        if number not in fold.values() or any(len(np.unique(store.labels())) < 2 for store in (kept, chooses)):
            continue  # nothing to leave out, or all there is of a class
        expert = new_network(build_vit, tiny=tiny, seed=recipe.seed)
        if start is not None and number >= scratch:
            load_into(expert, start, what="vit", strict=False)
        weights = head_weights(kept.views, rows)
        own = folder / f"{name_of.__name__}-{number}"
        train_vit_head(kept, chooses, recipe, own, expert=expert, weights=weights, axes=axes, traces=traces)
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


@dataclass(frozen=True)
class Strangers:
    """Heads of the ViT that have not seen a part of the sources, and such that have not seen some generators."""

    by_source: Unseen
    by_generator: Unseen


NEED_BOTH = ("auc_known", "auc_unseen", "ece_unseen", "called_real_unseen")
"""Figures that there are only beside real and fake items."""


def with_vit(table: ScoreTable, logits: Array) -> ScoreTable:
    """The table with other logits of the ViT, where they are known."""
    raw, column = table.logits.copy(), EXPERT_NAMES.index("vit")
    raw[:, column] = np.where(np.isnan(logits), raw[:, column], logits)
    return replace(table, logits=raw)


def stranger_figures(
    val: ScoreTable, strangers: Strangers, gate: Gate, calibration: Calibration
) -> dict[str, dict[str, list[float] | None]]:
    """What users get of sources and generators that no training has seen, for the model card.

    Each validation picture is scored by a ViT head that has not seen its source, or its generator; gate, calibration
    and band are those of the version, which come from such scores of other pictures.
    Sources of fakes alone are measured beside all real pictures.

    Args:
        val: scores of the validation pictures by the version.
        strangers: their logits by such heads, in the store `val`.

    Returns:
        The figures of `_measured` by the name of a source, or `generator` and its name.
    """

    def probabilities(logits: Array) -> Array:
        return np.asarray(expit(gate_logits(gate, with_vit(val, logits))))

    known, unseen = expit(gate_logits(gate, val)), probabilities(strangers.by_source.of_own("val"))
    sources, generators, real = np.asarray(val.sources), np.asarray(val.generators), val.labels <= 0.5
    cases: dict[str, tuple[npt.NDArray[np.bool_], Array]] = {}
    for source in np.unique(sources):
        fakes, reals = (sources == source) & ~real, (sources == source) & real
        if reals.sum() < LEAST:
            reals = real if fakes.sum() >= LEAST else np.zeros(len(real), bool)
        if max(fakes.sum(), reals.sum()) >= LEAST:
            cases[str(source)] = (reals | fakes, unseen)
    for generator, fold in sorted(strangers.by_generator.fold.items()):
        fakes = generators == generator
        beside = real & np.isin(sources, np.unique(sources[fakes]))
        reals = beside if beside.sum() >= LEAST else real
        if fakes.sum() >= LEAST:
            scores = probabilities(strangers.by_generator.logits["val"][fold])
            cases[f"generator {generator}"] = (fakes | reals, scores)
    groups, band = np.asarray(val.groups), calibration.band(0.5, missing=0)
    return {
        name: _measured(val.labels[chosen], known[chosen], scores[chosen], groups[chosen].tolist(), band)
        for name, (chosen, scores) in cases.items()
    }


def _measured(
    labels: Array, known: Array, unseen: Array, groups: Sequence[str], band: tuple[float, float]
) -> dict[str, list[float] | None]:
    """Value and 95 % interval of each figure, from probabilities with and without it; `band`: what is called neither.

    AUC and calibration error of probabilities; of the real items the shares above 50 %, called fake by the verdict and
    left inconclusive; of the fakes the share called real. None where there is nothing to measure.
    """
    real_below, fake_above = band
    shown: dict[str, tuple[Callable[..., float], Array]] = {
        "auc_known": (auc, known),
        "auc_unseen": (auc, unseen),
        "ece_unseen": (ece, unseen),
        "false_alarms_known": (false_alarm_rate, known),
        "false_alarms_unseen": (false_alarm_rate, unseen),
        "called_fake_unseen": (partial(false_alarm_rate, threshold=fake_above), unseen),
        "undecided_unseen": (partial(share_between, low=real_below, high=fake_above), unseen),
        "called_real_unseen": (partial(miss_rate, threshold=np.nextafter(real_below, 1)), unseen),  # at it, too
    }
    figures: dict[str, list[float] | None] = dict.fromkeys(shown)
    for what, (measure, scores) in shown.items():
        if what not in NEED_BOTH or len(np.unique(labels)) == 2:
            figure = bootstrap(measure, labels, scores, groups, rounds=ROUNDS)
            figures[what] = None if np.isnan(figure.value) else rounded(figure)
    return figures


def share_between(labels: Array, probabilities: Array, low: float, high: float) -> float:
    """Share of the real ones that lie inside the undecided band; NaN without real ones."""
    real = probabilities[labels <= 0.5]
    return float(((real > low) & (real < high)).mean()) if len(real) else float("nan")
