"""Fine-tuning itself: SGD on cached features with replay, a pull to the base, and a ball that nothing leaves.

The loss is how far feedback is from a right verdict, squared, plus how far the answers on the replay buffer have moved
from those of the base (distillation, after Li and Hoiem 2016, "Learning without Forgetting"; replay with it after
Buzzega et al. 2020, "Dark Experience"), plus the distance of the weights from the base (L2-SP, Li et al. 2018,
"Explicit Inductive Bias for Transfer Learning"). What has its verdict already pulls no further. Of the step from the
base so much is kept that the answers on a third of the replay buffer, which tuning did not see, move no further than
allowed (weight interpolation, Wortsman et al. 2022, "Robust fine-tuning of zero-shot models").

Every training starts at the *base* and learns all accepted items again. So trainings do not add up, a withdrawn vote
is forgotten, and the same votes in another order give the same candidate.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from utils.errors import TrainingDataError
from utils.feedback.feature_set import FeatureSet, join_features
from utils.feedback.trainable import LearnedParts, tensors_of

Progress = Callable[[str, float], None]
"""Stage and how much of it is done, 0..1; what it raises ends the training."""


@dataclass(frozen=True)
class Recipe:
    """How a candidate is trained; a trained version may bring its own (`of_card`).

    Args:
        rate: of SGD without momentum. Single layers learn here, from stored features, and with gradients clipped no
            step is longer than the rate: at 1e-5, a rate for whole networks, 500 steps would move the weights by at
            most 0.005 and correct nothing.
        clip: largest gradient norm.
        steps: of SGD.
        batch: items per step, feedback and replay together.
        replay_share: share of a batch that comes from the replay buffer.
        distillation_weight: of the squared distance between the logits on the replay buffer and those of the base.
        l2sp_weight: strength of the pull to the base (half of it times the squared distance is added to the loss).
        max_weight_change: Euclidean distance from the base that the learned tensors together never exceed.
        seed: of the draws.
        margin: logits beyond the border of the verdict from which an item counts as learned.
        drift: root mean square by which the logits on the unseen third of the replay buffer may move.
    """

    rate: float = 0.02
    clip: float = 1.0
    steps: int = 500
    batch: int = 32
    replay_share: float = 0.75
    distillation_weight: float = 50.0
    l2sp_weight: float = 0.01
    max_weight_change: float = 0.6
    seed: int = 0
    margin: float = 0.3
    drift: float = 0.2

    def __post_init__(self) -> None:
        least = min(self.l2sp_weight, self.distillation_weight, self.margin)
        if min(self.rate, self.clip, self.max_weight_change, self.drift) <= 0 or least < 0:
            raise ValueError(f"rate, clip, drift and max_weight_change are above 0, others not below: {self}")
        if self.steps < 1 or self.batch < 4 or not 0 <= self.replay_share < 1:
            raise ValueError(f"steps start at 1, batch at 4, replay_share is within 0..1 and below 1: {self}")

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> Recipe:
        """The recipe of a version, by what its card's `feedback_recipe` says differently.

        Raises:
            TrainingDataError: the card says something that is none.
        """
        try:
            return cls(**card.get("feedback_recipe", {}))
        except (TypeError, ValueError) as error:
            raise TrainingDataError(f"The card's feedback_recipe is wrong: {error}") from error


@dataclass(frozen=True)
class Tuned:
    """What a fine-tuning did.

    Args:
        loss: mean loss of the feedback items over the last tenth of the steps.
        distance: Euclidean distance of the learned tensors from the base.
        steps: taken.
        share: of the step from the base that was kept.
    """

    loss: float
    distance: float
    steps: int
    share: float = 1.0


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes with one thread in here: the layers are small, so more of them wait more than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def tune(
    parts: LearnedParts,
    feedback: FeatureSet,
    replay: FeatureSet,
    recipe: Recipe,
    borders: tuple[float, float] = (0.0, 0.0),
    progress: Progress | None = None,
) -> Tuned:
    """Learn the actual labels of feedback items, in place.

    Args:
        parts: of the base.
        feedback: accepted items, all of them.
        replay: the replay buffer.
        recipe: how.
        borders: logits at or below which the verdict is `real`, and at or above which it is `fake`.
        progress: told now and then.

    Raises:
        TrainingDataError: there is nothing to learn from, or the loss is not finite.
    """
    if not len(feedback):
        raise TrainingDataError("There is no accepted feedback to learn from.")
    tell = progress or (lambda stage, done: None)
    rng = np.random.default_rng(recipe.seed)
    seen = rng.permutation(len(replay)) % 3 > 0
    replay, unseen = replay.select(seen), replay.select(~seen)
    old_count = round(recipe.batch * recipe.replay_share) if len(replay) else 0
    fresh = balanced_draws(feedback, recipe.batch - old_count, rng)
    old = balanced_draws(replay, old_count, rng) if old_count else None
    everything = join_features([feedback, replay]) if old_count else feedback
    held = tensors_of(everything)
    wanted = torch.from_numpy(everything.labels)
    goal = torch.where(wanted > 0.5, borders[1] + recipe.margin, recipe.margin - borders[0])
    learned = parts.learning()
    base = {name: tensor.detach().clone() for name, tensor in learned.items()}
    with torch.inference_mode():
        answers = parts(*held)
        before = parts(*tensors_of(unseen)) if len(unseen) else answers[:0]
    losses = []
    for step in range(recipe.steps):
        chosen = next(fresh)
        count = len(chosen)
        if old is not None:
            chosen = np.concatenate([chosen, len(feedback) + next(old)])
        logits = parts(*_rows(held, everything.starts, chosen))
        each = functional.binary_cross_entropy_with_logits(logits, wanted[chosen], reduction="none")
        if not torch.isfinite(each).all():
            raise TrainingDataError(f"The loss is not finite at step {step}; nothing was kept.")
        signed = torch.where(wanted[chosen] > 0.5, logits, -logits)
        loss = (goal[chosen] - signed)[:count].relu().square().mean()
        if old is not None:
            moved = logits[count:] - answers[chosen[count:]]
            loss = loss + recipe.distillation_weight * moved.square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(float(each[:count].detach().mean()))
        _step(learned, base, recipe)
        if step % 50 == 0:
            tell("learn", step / recipe.steps)
    for tensor in learned.values():
        tensor.requires_grad_(False)
    recent = losses[-max(1, recipe.steps // 10) :]
    share = 1.0
    with torch.inference_mode():
        while (
            len(unseen)
            and (drift := float((parts(*tensors_of(unseen)) - before).square().mean().sqrt())) > recipe.drift
        ):
            share *= min(0.95, recipe.drift / drift)
            _shrink(learned, base, min(0.95, recipe.drift / drift))
    return Tuned(float(np.mean(recent)), distance_between(learned, base), recipe.steps, share)


def balanced_draws(features: FeatureSet, count: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    """Endless draws in which real and fake come equally often, and within each label every source equally often.

    However many items one label or one source has, it cannot crowd out the others.

    Args:
        features: to draw from; at least one item.
        count: of items per draw; some come more than once where there are few.
        rng: of the draws.

    Yields:
        (count,) indices.
    """
    cells: dict[float, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, (label, source) in enumerate(zip(features.labels, features.sources, strict=True)):
        cells[float(label)][source].append(i)
    labels = [[np.array(items) for items in sources.values()] for _, sources in sorted(cells.items())]
    while True:
        picked = np.empty(count, np.int64)
        for k in range(count):
            sources = labels[k % len(labels)]
            items = sources[int(rng.integers(len(sources)))]
            picked[k] = items[int(rng.integers(len(items)))]
        yield picked


def _rows(
    held: tuple[Tensor, Tensor, Tensor, Tensor], starts: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens, owner, logits and quality of some items, which may come more than once."""
    tokens, _, logits, quality = held
    frames = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in chosen])
    owner = np.repeat(np.arange(len(chosen)), np.diff(starts)[chosen])
    return tokens[frames], torch.from_numpy(owner), logits[chosen], quality[chosen]


def _step(learned: dict[str, Tensor], base: dict[str, Tensor], recipe: Recipe) -> None:
    """One clipped step of SGD, with the pull to the base in its gradient, then back into the ball around the base."""
    with torch.no_grad():
        for name, tensor in learned.items():
            if tensor.grad is not None and recipe.l2sp_weight:
                tensor.grad.add_(tensor - base[name], alpha=recipe.l2sp_weight)
        nn.utils.clip_grad_norm_(list(learned.values()), recipe.clip)
        for tensor in learned.values():
            if tensor.grad is not None:
                tensor.sub_(tensor.grad, alpha=recipe.rate)
                tensor.grad = None
        distance = distance_between(learned, base)
        if distance > recipe.max_weight_change:
            _shrink(learned, base, recipe.max_weight_change / distance)


def _shrink(learned: Mapping[str, Tensor], base: Mapping[str, Tensor], share: float) -> None:
    """Keep a share of the step from the base."""
    for name, tensor in learned.items():
        tensor.copy_(base[name] + (tensor - base[name]) * share)


def distance_between(learned: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> float:
    """Euclidean distance of all tensors of one name together."""
    with torch.no_grad():
        return math.sqrt(sum(float((tensor - base[name]).norm()) ** 2 for name, tensor in learned.items()))
