"""Clips as sequences of ResNeXt-50 features: what the LSTM learns from. Stands between the experts and `train_lstm`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.cards import MIN_SEQUENCE
from models.ensemble_model import Ensemble
from utils.errors import TrainingDataError
from utils.log import get_logger
from utils.training.crop_set import Pack, PackedCrop
from utils.training.features import FeatureStore
from utils.training.scoring import clip_slices, score_store
from utils.training.views import SEED_STEP, View, is_coded, plan_clip

log = get_logger(__name__)


def clean_clips(pack: Pack, split: str) -> list[View]:
    """Views of all clips of a split, without augmentation, one clip after another."""
    return [
        view
        for i, (_, frames) in enumerate(sorted(pack.videos(split).items()))
        for view in plan_clip(frames, seed=i, clean=True, blended=False, unsteady=False)
    ]


def why_no_sequences(pack: Pack) -> str:
    """A sentence why there can be no LSTM; empty when there can. Fake clips need not be there: they can be blended."""
    for split in ("train", "calib"):
        whole = _whole_clips(pack, split)
        if not any(frames[0].label == 0 and len(frames) >= MIN_SEQUENCE for frames in whole):
            return f"The split {split} has no clip of a real person in at least {MIN_SEQUENCE} frames."
    return ""


def _whole_clips(pack: Pack, split: str) -> list[list[PackedCrop]]:
    """The clips whose person is seen in as many frames as in any: the LSTM learns from sequences of one length."""
    clips = [frames for _, frames in sorted(pack.videos(split).items())]
    length = max((len(frames) for frames in clips), default=0)
    return [frames for frames in clips if len(frames) == length]


def clip_sequences(
    ensemble: Ensemble,
    pack: Pack,
    folder: Path,
    blends: int,
    *,
    split: str = "train",
    device: str = "cpu",
    seed: int = 0,
    h264: float = 0.0,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Augmented clips, and self-blends of the real ones, as the LSTM sees them.

    Args:
        ensemble: with ResNeXt-50 as it will be stored.
        pack: with the clips' crops.
        folder: of the feature store; one per split.
        blends: self-blended clips made of each real one; as many further copies are made of each clip, real or fake.
        split: whose clips.
        device: cpu or cuda.
        seed: of the augmentation.
        h264: share of the sequences, real or fake, that are coded as a video.

    Returns:
        (N, T, D) features and (N,) labels.

    Raises:
        TrainingDataError: the ensemble has no ResNeXt-50.
    """
    if "resnext" not in ensemble.experts:
        raise TrainingDataError("The LSTM needs the features of ResNeXt-50.")
    clips = [frames for _, frames in sorted(pack.videos(split).items())]
    length = max(len(frames) for frames in clips)
    own = SEED_STEP * seed
    planned: list[list[View]] = []
    for i, frames in enumerate(clips):
        if len(frames) < length:
            log.warning("%s is left out of the sequences: %d of %d frames", frames[0].file, len(frames), length)
            continue
        for copy in range(1 + blends):
            seed = 7_000 + 10 * i + copy + own
            planned.append(
                plan_clip(frames, seed=seed, clean=False, blended=False, unsteady=False, h264=is_coded(seed, h264))
            )
        if frames[0].label == 0:
            for copy in range(blends):
                seed = 8_000 + 10 * i + copy + own
                steady = copy % 2 == 1
                coded = is_coded(seed, h264)
                planned.append(plan_clip(frames, seed=seed, clean=False, blended=True, unsteady=not steady, h264=coded))
    store = FeatureStore(folder, [view for clip in planned for view in clip])
    store.extract(pack, _PixelsOnly())
    only_resnext = Ensemble(experts={"resnext": ensemble.experts["resnext"]}, gate=ensemble.gate, tiny=ensemble.tiny)
    _, features = score_store(only_resnext.eval(), store, device=device)
    if features is None:
        raise TrainingDataError("The LSTM needs the features of ResNeXt-50.")
    parts = clip_slices(pack, store)
    labels = np.array([store.views[p.start].label for p in parts], np.float32)
    return np.stack([features[p] for p in parts]).astype(np.float32), labels


class _PixelsOnly:
    """A featurizer for stores of which only the pixels are wanted."""

    def __call__(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
        return np.zeros((len(batch), 1), np.float16)
