"""From accepted feedback to what a candidate remembers, without changing a weight. Pure functions, a second or two.

Each item asks for as many logits as it lacks to a right verdict, none where it has one. It reaches as far as the face
of the replay buffer that is most like it: of those faces it is known what the base says, and that shall stay. How much
of this reach is taken is searched, the largest first: each third of its people is judged with reaches that end at the
other two, and the figures on all of it must stay within bounds tighter than those of the golden set. So faces of a
world that no training saw are moved freely, and faces of a known one hardly, whoever says what about them.

Every training begins anew with *all* accepted items: trainings do not add up, a withdrawn vote is forgotten, and the
same votes in another order give the same candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.detection.remembered import Remembered, at_depth, directions_of, mean_of_items
from utils.errors import TrainingDataError
from utils.feedback.feature_set import FeatureSet
from utils.feedback.golden import Bounds, figures
from utils.metrics import sigmoids
from utils.types import Floats

Progress = Callable[[str, float], None]
"""Stage and how much of it is done, 0..1; what it raises ends the training."""
Array = npt.NDArray[np.float64]

SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)
"""Of the way from a correction to the nearest face of the replay buffer, as 1 less the cosine."""
FOLDS = 3
KEPT_FRAMES = 4
"""Of a clip; every one is remembered as a face of its own."""
FORMER = frozenset({
    "rate", "clip", "steps", "batch", "replay_share", "distillation_weight", "l2sp_weight", "max_weight_change", "seed",
    "drift",
})  # fmt: skip
"""What recipes of before said, when the ViT's head was tuned."""


@dataclass(frozen=True)
class Recipe(Bounds):
    """How a candidate is made; a trained version may bring its own (`of_card`). The bounds hold on the replay buffer.

    Args:
        margin: logits beyond the border of the verdict that an item asks for.
    """

    auc: float = 0.0025
    ece: float = 0.005
    slice_loss: float = 0.01
    margin: float = 0.3

    def __post_init__(self) -> None:
        if min(self.margin, self.auc, self.ece, self.slice_loss) < 0:
            raise ValueError(f"margin and bounds are not below 0: {self}")

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> Recipe:
        """The recipe of a version, by what its card's `feedback_recipe` says differently.

        Raises:
            TrainingDataError: the card says something that is none.
        """
        try:
            return cls(**{k: v for k, v in card.get("feedback_recipe", {}).items() if k not in FORMER})
        except (TypeError, ValueError, AttributeError) as error:
            raise TrainingDataError(f"The card's feedback_recipe is wrong: {error}") from error


@dataclass(frozen=True)
class Learned:
    """What came of the feedback.

    Args:
        remembered: for the candidate.
        share: of the reach that was taken.
        steps: shares that were tried.
        moved: root mean square of how far the logits on the replay buffer were moved in the search.
    """

    remembered: Remembered
    share: float
    steps: int
    moved: float


def remember(
    feedback: FeatureSet,
    said: Array,
    replay: FeatureSet,
    before: Array,
    recipe: Recipe,
    borders: tuple[float, float] = (0.0, 0.0),
    progress: Progress | None = None,
) -> Learned:
    """Make what a candidate remembers.

    Args:
        feedback: accepted items, all of them.
        said: (N,) logits of the base on them.
        replay: the replay buffer, at least one item.
        before: (R,) logits of the base on it.
        recipe: how.
        borders: logits at or below which the verdict is `real`, and at or above which it is `fake`.
        progress: told now and then.

    Raises:
        TrainingDataError: there is nothing to learn from or to hold on to, or no ViT that would tell faces apart.
    """
    if not len(feedback):
        raise TrainingDataError("There is no accepted feedback to learn from.")
    if feedback.tokens.shape[1:] == (1, 1) or not len(replay):
        raise TrainingDataError("Learning needs a version with a ViT and a replay buffer.")
    mean = np.asarray(at_depth(replay.tokens), np.float32).mean(0)
    fake = feedback.labels > 0.5
    lacking = np.where(fake, borders[1] + recipe.margin - said, said - borders[0] + recipe.margin)
    asked = (np.where(fake, 1, -1) * np.maximum(lacking, 0)).astype(np.float32)
    every, old = (directions_of(each.tokens, mean) for each in (feedback, replay))
    frames, owner = _few_frames(feedback)
    mine = every[frames].astype(np.float16)
    among, to_old = (each @ mine.astype(np.float32).T for each in (every, old))  # cosines of frames to what is kept
    closest = np.maximum.reduceat(to_old, replay.starts[:-1]).T  # (F, R)
    _, person = np.unique(replay.groups, return_inverse=True)
    fold = (np.random.default_rng(0).permutation(int(person.max()) + 1) % FOLDS)[person]

    def with_reach(share: float, others: Floats) -> Remembered:
        reach = (1 - share * (1 - np.minimum(others, 1))).astype(np.float32)
        wide = Remembered(mean, mine, reach, asked[owner], np.zeros(len(owner), np.float32))
        lacks = asked - mean_of_items(wide.shift_alike(among), feedback.starts)
        return replace(wide, rest=lacks.astype(np.float32)[owner])

    base, moved, tried = figures(replay, sigmoids(before)), np.zeros(len(replay)), 0
    for tried, share in enumerate(SHARES, start=1):
        if progress is not None:
            progress("learn", (tried - 1) / len(SHARES))
        for part in np.unique(fold):
            kept = with_reach(share, closest[:, fold != part].max(1, initial=-1.0))
            moved[fold == part] = mean_of_items(kept.shift_alike(to_old), replay.starts)[fold == part]
        if recipe.broken(figures(replay, sigmoids(before + moved)), base) is None:
            break
    return Learned(with_reach(share, closest.max(1)), share, tried, float(np.sqrt((moved**2).mean())))


def _few_frames(features: FeatureSet) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """`KEPT_FRAMES` frames of each item at most, evenly spread, and the item of each."""
    spans = zip(features.starts[:-1], features.starts[1:], strict=True)
    frames = [np.unique(np.linspace(low, high - 1, KEPT_FRAMES).round().astype(np.int64)) for low, high in spans]
    return np.concatenate(frames), np.repeat(np.arange(len(frames)), [len(each) for each in frames])
