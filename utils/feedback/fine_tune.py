"""Fine-tuning itself: SGD on cached features with replay, a pull to the base, and a ball that nothing leaves.

The loss is the cross-entropy of feedback against the actual labels, plus that of the replay buffer, plus how far the
answers on the replay buffer have moved from those of the base (distillation, after Li and Hoiem 2016, "Learning
without Forgetting"; replay with it after Buzzega et al. 2020, "Dark Experience"), plus the distance of the weights
from the base (L2-SP, Li et al. 2018, "Explicit Inductive Bias for Transfer Learning").

Every training starts at the *base* and learns all accepted items again. So trainings do not add up, a withdrawn vote
is forgotten, and the same votes in another order give the same candidate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from utils.errors import TrainingDataError
from utils.feedback.compact import compact, expand
from utils.feedback.feature_set import FeatureSet, join_features
from utils.feedback.replay import balanced_draws
from utils.feedback.settings import LearnSettings
from utils.feedback.trainable import LearnedParts, tensors_of

Progress = Callable[[str, float], None]
"""Stage and how much of it is done, 0..1; what it raises ends the training."""


@dataclass(frozen=True)
class Tuned:
    """What a fine-tuning did.

    Args:
        loss: mean loss of the feedback items over the last tenth of the steps.
        distance: Euclidean distance of the learned tensors from the base.
        steps: taken.
    """

    loss: float
    distance: float
    steps: int


def tune(
    parts: LearnedParts,
    feedback: FeatureSet,
    replay: FeatureSet,
    settings: LearnSettings,
    progress: Progress | None = None,
) -> Tuned:
    """Learn the actual labels of feedback items, in place.

    Args:
        parts: of the base.
        feedback: accepted items, all of them.
        replay: the replay buffer.
        settings: see `LearnSettings`.
        progress: told now and then.

    Raises:
        TrainingDataError: there is nothing to learn from, or the loss is not finite.
    """
    if not len(feedback):
        raise TrainingDataError("There is no accepted feedback to learn from.")
    everything = join_features([feedback, replay]) if len(replay) and settings.replay_share else feedback
    small = compact(parts, everything) if "norms" not in settings.parts else None
    if small is None:
        return _descend(parts, everything, len(feedback), settings, progress)
    done = _descend(small.parts, small.features, len(feedback), settings, progress)
    if parts.head is not None:
        expand(small, parts.head)
    return done


def _descend(
    parts: LearnedParts, everything: FeatureSet, fresh_items: int, settings: LearnSettings, progress: Progress | None
) -> Tuned:
    """The steps of SGD; the first `fresh_items` of `everything` are feedback, the others replay."""
    tell = progress or (lambda stage, done: None)
    learned = parts.named(settings.parts)
    base = {name: tensor.detach().clone() for name, tensor in learned.items()}
    rng = np.random.default_rng(settings.seed)
    order = np.arange(len(everything))
    old_share = round(settings.batch * settings.replay_share) if len(everything) > fresh_items else 0
    fresh = balanced_draws(everything.select(order < fresh_items), settings.batch - old_share, rng)
    old = balanced_draws(everything.select(order >= fresh_items), old_share, rng) if old_share else None
    wanted = torch.from_numpy(everything.labels)
    with torch.inference_mode():
        answers = parts(*tensors_of(everything))
    losses = []
    for step in range(settings.steps):
        chosen = next(fresh)
        count = len(chosen)
        if old is not None:
            chosen = np.concatenate([chosen, fresh_items + next(old)])
        logits = parts(*tensors_of(everything.select(chosen)))
        each = functional.binary_cross_entropy_with_logits(logits, wanted[chosen], reduction="none")
        if not torch.isfinite(each).all():
            raise TrainingDataError(f"The loss is not finite at step {step}; nothing was kept.")
        loss = each[:count].mean()
        if old is not None:
            moved = logits[count:] - answers[chosen[count:]]
            loss = loss + each[count:].mean() + settings.hold * moved.square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(float(each[:count].detach().mean()))
        _step(learned, base, settings)
        if step % 50 == 0:
            tell("learn", step / settings.steps)
    for tensor in learned.values():
        tensor.requires_grad_(False)
    recent = losses[-max(1, settings.steps // 10) :]
    return Tuned(float(np.mean(recent)), distance_between(learned, base), settings.steps)


def _step(learned: dict[str, Tensor], base: dict[str, Tensor], settings: LearnSettings) -> None:
    """One clipped step of SGD, with the pull to the base in its gradient, then back into the ball around the base."""
    with torch.no_grad():
        for name, tensor in learned.items():
            if tensor.grad is not None and settings.l2sp:
                tensor.grad.add_(tensor - base[name], alpha=settings.l2sp)
        nn.utils.clip_grad_norm_(list(learned.values()), settings.clip)
        for tensor in learned.values():
            if tensor.grad is not None:
                tensor.sub_(tensor.grad, alpha=settings.lr * settings.lr_scale)
                tensor.grad = None
        distance = distance_between(learned, base)
        if distance > settings.max_distance:
            share = settings.max_distance / distance
            for name, tensor in learned.items():
                tensor.copy_(base[name] + (tensor - base[name]) * share)


def distance_between(learned: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> float:
    """Euclidean distance of all tensors of one name together."""
    with torch.no_grad():
        return math.sqrt(sum(float((tensor - base[name]).norm()) ** 2 for name, tensor in learned.items()))
