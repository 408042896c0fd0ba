"""How much is trained, and how long: the plan of a whole training, and two smaller ones."""

from __future__ import annotations

from dataclasses import dataclass, field

from utils.learning.loop import Recipe


@dataclass(frozen=True)
class TrainingPlan:
    """What is trained how long.

    Args:
        per_class: most views per source and label whose ViT features are stored; ViT head, CNN and ResNeXt-50 learn
            from these. Half a second each on one processor core.
        blends: most self-blended fakes per source among them.
        calib_per_class: most calibration pictures per source and label.
        frames_per_clip: frames of a training clip that the image experts learn from.
        clip_blends: self-blended fakes made of each real training clip for the LSTM.
        cnn: recipe of the CNN.
        resnext: recipe of ResNeXt-50.
        vit: recipe of the ViT's head.
        lstm: recipe of the LSTM.
        holdout: also train the ViT's head without each source of pictures, to see what it does on a stranger's.
        tiny: train the tiny test networks.
    """

    per_class: int = 2000
    blends: int = 500
    calib_per_class: int = 300
    frames_per_clip: int = 6
    clip_blends: int = 2
    cnn: Recipe = field(
        default_factory=lambda: Recipe(epochs=24, lr=1.5e-3, weight_decay=0.02, average=0.997, patience=8)
    )
    resnext: Recipe = field(default_factory=lambda: Recipe(epochs=12, lr=1e-3, patience=5))
    vit: Recipe = field(default_factory=lambda: Recipe(epochs=15, batch=64, lr=1e-3, weight_decay=0.5, patience=6))
    lstm: Recipe = field(default_factory=lambda: Recipe(epochs=20, batch=16, lr=3e-4, weight_decay=0.1, patience=6))
    holdout: bool = True
    tiny: bool = False


def quick_plan() -> TrainingPlan:
    """Minutes on a CPU: five epochs on a subset."""
    return TrainingPlan(
        per_class=150,
        blends=40,
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
        per_class=40,
        blends=10,
        calib_per_class=20,
        frames_per_clip=2,
        clip_blends=1,
        cnn=few,
        resnext=few,
        vit=few,
        lstm=few,
        holdout=False,
        tiny=True,
    )
