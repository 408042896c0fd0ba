"""Raw scores of all experts on stored views, and clips as sequences: what gate, calibration and LSTM are fitted on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from models.cards import EXPERT_NAMES, IMAGE_EXPERTS, MIN_SEQUENCE
from models.ensemble_model import Ensemble
from utils.evaluation.score_file import ScoreTable
from utils.log import get_logger
from utils.training.crop_set import Pack, PackedCrop
from utils.training.experts import score_images
from utils.training.features import FeatureStore, Stored
from utils.training.planning import SEED_STEP, plan_clip
from utils.training.views import View, clip_slices, is_coded
from utils.types import Floats

Array = npt.NDArray[np.float64]
log = get_logger(__name__)


def score_store(ensemble: Ensemble, store: Stored, *, device: str = "cpu") -> tuple[Array, Floats | None]:
    """Raw logits (N, E) of the image experts on a store, and the (N, D) ResNeXt-50 features.

    The ViT's tokens are taken from the store; its backbone does not run again.
    """
    pixels = store.load("pixels")
    logits, features = np.full((len(pixels), len(EXPERT_NAMES)), np.nan), None
    for name in IMAGE_EXPERTS:
        if name == "vit" and name in ensemble.experts:
            tokens = torch.from_numpy(np.asarray(store.load("tokens"), np.float32))
            head: nn.Module = ensemble.experts["vit"].head  # type: ignore[assignment]
            with torch.inference_mode():
                logits[:, EXPERT_NAMES.index(name)] = head(tokens).logit.numpy()
        elif name in ensemble.experts:
            expert = ensemble.experts[name].to(device)
            scored, seen = score_images(expert, name, pixels, tiny=ensemble.tiny, device=device)
            logits[:, EXPERT_NAMES.index(name)] = scored
            features = seen if name == "resnext" else features
    return logits, features


def score_table(ensemble: Ensemble, pack: Pack, store: Stored, *, device: str = "cpu") -> ScoreTable:
    """One row per picture or clip: image experts averaged over its frames, the LSTM on the sequence, mean quality."""
    logits, features = score_store(ensemble, store, device=device)
    quality = np.asarray(store.load("quality"), np.float64)
    parts = clip_slices(pack, store.views[: len(store.labels())])
    views = [store.views[p.start] for p in parts]
    rows = [pack.rows[v.row] for v in views]
    out = np.stack([logits[p].mean(0) for p in parts])
    if "lstm" in ensemble.experts and features is not None:
        with torch.inference_mode():
            for i, p in enumerate(parts):
                if p.stop - p.start >= MIN_SEQUENCE:
                    logit = ensemble.sequence_logit(torch.from_numpy(features[p]))
                    out[i, EXPERT_NAMES.index("lstm")] = float(logit)
    return ScoreTable(
        names=tuple(r.file for r in rows),
        kinds=tuple(r.kind for r in rows),
        labels=np.array([v.label for v in views], np.float64),
        sources=tuple(v.source for v in views),
        generators=tuple(v.generator for v in views),
        groups=tuple(r.group for r in rows),
        logits=out,
        quality=np.stack([quality[p].mean(0) for p in parts]),
    )


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
        blends: self-blended clips made of each real one; as many further copies are made of each clip, real or fake.
        h264: share of the sequences, real or fake, that are coded as a video.

    Returns:
        (N, T, D) features and (N,) labels.
    """
    clips = [frames for _, frames in sorted(pack.videos(split).items())]
    length = max(len(frames) for frames in clips)
    own = SEED_STEP * seed
    planned: list[View] = []
    for i, frames in enumerate(clips):
        if len(frames) < length:
            log.warning("%s is left out of the sequences: %d of %d frames", frames[0].file, len(frames), length)
            continue
        copies = [(7_000 + copy, False, False) for copy in range(1 + blends)]
        copies += [(8_000 + copy, True, copy % 2 == 0) for copy in range(blends) if frames[0].label == 0]
        for number, blended, unsteady in copies:
            seed = number + 10 * i + own
            coded = is_coded(seed, h264)
            planned += plan_clip(frames, seed=seed, clean=False, blended=blended, unsteady=unsteady, h264=coded)
    store = FeatureStore(folder, planned)
    store.extract(pack, lambda batch: np.zeros((len(batch), 1), np.float16))  # only pixels are wanted
    resnext = ensemble.experts["resnext"].to(device).eval()
    _, features = score_images(resnext, "resnext", store.load("pixels"), tiny=ensemble.tiny, device=device)
    parts = clip_slices(pack, store.views)
    labels = np.array([store.views[p.start].label for p in parts], np.float32)
    return np.stack([features[p] for p in parts]).astype(np.float32), labels
