"""How a candidate is trained: the section [learning]. Without torch, for a worker reads it at its start."""

from __future__ import annotations

from dataclasses import dataclass

from utils.config import LearningSettings, learning_parts
from utils.errors import ConfigError


@dataclass(frozen=True)
class LearnSettings:
    """How a candidate is trained; the keys of [learning].

    Args:
        lr: learning rate of SGD without momentum.
        lr_scale: the learning rate is multiplied by this. A rate of 1e-5 is one for whole networks; here single layers
            learn from cached features, and with gradients clipped to norm 1 a step is never longer than the rate, so
            that at 1e-5 alone 500 steps would move the weights by at most 0.005 and correct nothing.
        clip: largest gradient norm.
        steps: of SGD.
        batch: items per step, feedback and replay together.
        replay_share: share of a batch that comes from the replay buffer.
        hold: strength of holding the answers (logits) on the replay buffer at those of the base.
        l2sp: strength of the pull to the base (half of it times the squared distance is added to the loss).
        max_distance: Euclidean distance from the base that the learned tensors together never exceed.
        parts: which learn, of `gate`, `heads`, `norms`.
        seed: of the draws.
    """

    lr: float = 1e-5
    lr_scale: float = 1000.0
    clip: float = 1.0
    steps: int = 500
    batch: int = 32
    replay_share: float = 0.75
    hold: float = 2.0
    l2sp: float = 0.01
    max_distance: float = 0.6
    parts: tuple[str, ...] = ("gate", "heads")
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.lr, self.lr_scale, self.clip, self.max_distance) <= 0 or min(self.l2sp, self.hold) < 0:
            raise ValueError(f"lr, lr_scale, clip and max_distance are above 0, hold and l2sp not below: {self}")
        if self.steps < 1 or self.batch < 4 or not 0 <= self.replay_share < 1:
            raise ValueError(f"steps start at 1, batch at 4, replay_share is within 0..1 and below 1: {self}")


def learn_settings(settings: LearningSettings) -> LearnSettings:
    """How the configuration's section [learning] says that candidates are trained.

    Raises:
        ConfigError: values do not fit together.
    """
    parts = learning_parts(settings)
    try:
        return LearnSettings(
            lr=settings.lr,
            lr_scale=settings.lr_scale,
            clip=settings.clip,
            steps=settings.steps,
            batch=settings.batch,
            replay_share=settings.replay_share,
            hold=settings.hold,
            l2sp=settings.l2sp,
            max_distance=settings.max_distance,
            parts=parts,
        )
    except ValueError as error:
        raise ConfigError(f"[learning]: {error}.") from error
