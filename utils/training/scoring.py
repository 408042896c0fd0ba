"""Raw scores of all experts on stored views: what gate and calibration are fitted on and figures are made from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from models.cards import EXPERT_NAMES, MIN_SEQUENCE, expert_card
from models.ensemble_model import Ensemble
from models.preprocess import prepare, to_images
from utils.evaluation.score_file import ScoreTable
from utils.training.crop_set import Pack, PackedCrop
from utils.training.features import FeatureStore, Stored
from utils.training.views import View
from utils.types import MediaKind

Array = npt.NDArray[np.float64]


def score_store(ensemble: Ensemble, store: Stored, *, device: str = "cpu") -> tuple[Array, Array | None]:
    """Raw logits (N, E) of the image experts on a store, and the (N, D) ResNeXt-50 features.

    The ViT's tokens are taken from the store; its backbone does not run again.
    """
    pixels = store.load("pixels")
    logits = np.full((len(pixels), len(EXPERT_NAMES)), np.nan)
    features = []
    with torch.inference_mode():
        if "vit" in ensemble.experts:
            tokens = torch.from_numpy(np.asarray(store.load("tokens"), np.float32))
            head: nn.Module = ensemble.experts["vit"].head  # type: ignore[assignment]
            logits[:, EXPERT_NAMES.index("vit")] = head(tokens).logit.numpy()
        for name in ("cnn", "resnext"):
            if name not in ensemble.experts:
                continue
            card, expert = expert_card(name, tiny=ensemble.tiny), ensemble.experts[name].to(device)
            for low in range(0, len(pixels), 32):
                output = expert(prepare(to_images(pixels[low : low + 32]).to(device), card))
                logits[low : low + 32, EXPERT_NAMES.index(name)] = output.logit.cpu().numpy()
                if name == "resnext":
                    features.append(output.feature.cpu().numpy())
    return logits, np.concatenate(features) if features else None


def image_table(ensemble: Ensemble, pack: Pack, store: Stored, *, device: str = "cpu") -> ScoreTable:
    """One row per view of a store of pictures."""
    logits, _ = score_store(ensemble, store, device=device)
    views = store.views[: len(store.labels())]
    rows = [pack.rows[v.row] for v in views]
    quality = np.asarray(store.load("quality"), np.float64)
    return _table(MediaKind.IMAGE, rows, views, logits, quality)


def _table(
    kind: MediaKind, rows: Sequence[PackedCrop], views: Sequence[View], logits: Array, quality: Array
) -> ScoreTable:
    """Scores with what is known of their media: the crop and the view of each row."""
    return ScoreTable(
        names=tuple(r.file for r in rows),
        kinds=(kind.value,) * len(rows),
        labels=np.array([v.label for v in views], np.float64),
        sources=tuple(v.source for v in views),
        generators=tuple(v.generator for v in views),
        groups=tuple(r.group for r in rows),
        logits=logits,
        quality=quality,
    )


def clip_slices(pack: Pack, store: FeatureStore) -> list[slice]:
    """Where each clip of a store of clips begins and ends; clips lie one after another."""
    views = store.views[: store.done]
    keys = [(pack.rows[v.row].file, v.seed) for v in views]
    starts = [i for i, key in enumerate(keys) if i == 0 or key != keys[i - 1]]
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(keys)], strict=True)]


def clip_table(ensemble: Ensemble, pack: Pack, store: FeatureStore, *, device: str = "cpu") -> ScoreTable:
    """One row per clip: image experts averaged over its frames, the LSTM on the sequence, mean quality."""
    logits, features = score_store(ensemble, store, device=device)
    quality = np.asarray(store.load("quality"), np.float64)
    parts = clip_slices(pack, store)
    views = [store.views[p.start] for p in parts]
    rows = [pack.rows[v.row] for v in views]
    out = np.stack([logits[p].mean(0) for p in parts])
    if "lstm" in ensemble.experts and features is not None:
        with torch.inference_mode():
            for i, p in enumerate(parts):
                if p.stop - p.start >= MIN_SEQUENCE:
                    logit = ensemble.sequence_logit(torch.from_numpy(features[p]))
                    out[i, EXPERT_NAMES.index("lstm")] = float(logit)
    return _table(MediaKind.VIDEO, rows, views, out, np.stack([quality[p].mean(0) for p in parts]))
