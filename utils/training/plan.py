"""How much is trained, and how long: the plan of a whole training, two smaller ones, and plans from files."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from models.cards import EXPERT_NAMES
from utils.errors import TrainingDataError
from utils.training.loop import Recipe


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
