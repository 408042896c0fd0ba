"""From accepted feedback to what a candidate remembers, without changing a weight. Pure functions, a second or two.

Each item asks for as many logits as it lacks to a right verdict, none where it has one. It reaches as far as the face
of the replay buffer that is most like it: of those faces it is known what the base says, and that shall stay. How much
of this reach is taken is searched, the largest first: each third of its people is judged with reaches that end at the
other two, and the figures on all of it must stay within bounds tighter than those of the golden set. So faces of a
world that no training saw are moved freely, and faces of a known one hardly, whoever says what about them.

What the mean of its neighbours leaves an item lacking, the item itself not counted, a linear rule learns: ridge
regression with a squared hinge, from the score of the networks on, so that what has its verdict pulls at nothing (Chang
et al. 2008, "Coordinate descent method for large-scale L2-loss linear support vector machines"). Real faces and fakes
of one place, which cancel each other in the mean, are told apart by it, and so are others from there.

Every training begins anew with *all* accepted items: trainings do not add up, a withdrawn vote is forgotten, and the
same votes in another order give the same candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.detection.remembered import (
    DEPTH,
    DOUBT,
    RULE_DEPTH,
    Remembered,
    at_depth,
    blend,
    directions_of,
    mean_of_items,
    nearness,
)
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
RIDGE = 0.1
"""Of the rule, against directions of variance 1 and a start of variance `RIDGE`, where half of the items are fakes. The
fewer there are of one label the more: who says *fake* only does not tell what is real there."""
ONE_SIDED = 0.2
"""Share of the margin that is asked for where every item has the same label: who says *fake* only shall not call what
is real there a fake, which more of a push would do."""
ROUNDS = 20
"""Of the fit of the rule, at most; it is done when the same items lack their verdict as in the round before."""
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
        margin: logits beyond the border of the verdict that an item asks for, where half of the items are fakes.
    """

    auc: float = 0.0025
    ece: float = 0.005
    slice_loss: float = 0.005
    margin: float = 1.5

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
    mean, rule_mean = (np.asarray(at_depth(replay.tokens, d), np.float32).mean(0) for d in (DEPTH, RULE_DEPTH))
    sign = np.where(feedback.labels > 0.5, 1.0, -1.0)
    spare = recipe.margin * (ONE_SIDED + (1 - ONE_SIDED) * _evenness(sign))
    wanted = np.where(feedback.labels > 0.5, borders[1], borders[0]) + sign * spare
    every, old = (directions_of(each.tokens, mean) for each in (feedback, replay))
    later, old_later = (directions_of(each.tokens, rule_mean, RULE_DEPTH) for each in (feedback, replay))
    frames, owner = _few_frames(feedback)
    mine, pull = every[frames].astype(np.float16), _lacking(said, wanted, sign)[owner]
    among, to_old = (each @ mine.astype(np.float32).T for each in (every, old))  # cosines of frames to what is kept
    own = np.repeat(np.arange(len(feedback)), np.diff(feedback.starts))[:, None] == owner
    closest = np.maximum.reduceat(to_old, replay.starts[:-1]).T  # (F, R)
    _, person = np.unique(replay.groups, return_inverse=True)
    fold = (np.random.default_rng(0).permutation(int(person.max()) + 1) % FOLDS)[person]
    items = np.add.reduceat(later[frames], np.searchsorted(owner, range(len(feedback)))) / np.bincount(owner)[:, None]

    def ends(share: float, others: Floats) -> Floats:
        reach: Floats = (1 - share * (1 - np.minimum(others.max(1, initial=-1.0), 1))).astype(np.float32)
        return reach

    def with_rule(share: float) -> Remembered:
        reach = ends(share, closest)
        near = blend(nearness(np.where(own, np.float32(-1), among), reach), pull, DOUBT)
        rule, start = _rule(items, said + mean_of_items(near, feedback.starts), wanted, sign)
        whole = Remembered(mean, mine, reach, pull, np.zeros_like(pull), rule_mean, rule, start)
        moved = mean_of_items(whole.shift_alike(among, later @ rule + start), feedback.starts)
        return replace(whole, rest=_lacking(said + moved, wanted, sign)[owner])

    base, moved, tried = figures(replay, sigmoids(before)), np.zeros(len(replay)), 0
    for tried, share in enumerate(SHARES, start=1):
        if progress is not None:
            progress("learn", (tried - 1) / len(SHARES))
        kept = with_rule(share)
        ruled = old_later @ kept.rule + kept.rule_start
        for part in np.unique(fold):
            short = replace(kept, reach=ends(share, closest[:, fold != part]))
            moved[fold == part] = mean_of_items(short.shift_alike(to_old, ruled), replay.starts)[fold == part]
        if recipe.broken(figures(replay, sigmoids(before + moved)), base) is None:
            break
    return Learned(kept, share, tried, float(np.sqrt((moved**2).mean())))


def _evenness(sign: Array) -> float:
    """0 where all labels are the same, 1 where half of them are fakes."""
    return float(1 - sign.mean() ** 2)


def _lacking(said: Array, wanted: Array, sign: Array) -> Floats:
    out: Floats = (sign * np.maximum(sign * (wanted - said), 0)).astype(np.float32)
    return out


def _rule(items: Array, said: Array, wanted: Array, sign: Array) -> tuple[Floats, Floats]:
    """Weights (D,) of a direction, and start (1,): ridge regression on those of N items that lack something yet."""
    middle = items.mean(0)
    flat = items - middle
    spread = max((flat**2).sum(1).mean(), 1e-6)
    both = _evenness(sign)
    alike, pulls, lacking = both * (flat @ flat.T / spread + RIDGE), np.zeros(len(items)), np.zeros(0, np.int64)
    for _ in range(ROUNDS):
        before, lacking = lacking, np.flatnonzero(sign * (wanted - said - alike @ pulls) > 0)
        if np.array_equal(before, lacking):
            break
        pulls, inner = np.zeros(len(items)), alike[np.ix_(lacking, lacking)]
        pulls[lacking] = np.linalg.solve(inner + RIDGE * np.eye(len(lacking)), (wanted - said)[lacking])
    rule = both * (flat.T @ pulls) / spread
    return rule.astype(np.float32), np.array([both * RIDGE * pulls.sum() - rule @ middle], np.float32)


def _few_frames(features: FeatureSet) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """`KEPT_FRAMES` frames of each item at most, evenly spread, and the item of each."""
    spans = zip(features.starts[:-1], features.starts[1:], strict=True)
    frames = [np.unique(np.linspace(low, high - 1, KEPT_FRAMES).round().astype(np.int64)) for low, high in spans]
    return np.concatenate(frames), np.repeat(np.arange(len(frames)), [len(each) for each in frames])
