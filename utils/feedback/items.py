"""From an uploaded file to cached features that can be learned from, or to a sentence why not.

The steps are those of the analysis (`utils.detection.pipeline`); of the face that counts, the ViT's tokens are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models.cards import EXPERT_NAMES, expert_card
from models.ensemble_model import Ensemble
from models.preprocess import prepare, to_images
from models.vision_transformer import ViTExpert
from utils.detection.pipeline import Analyser, Person, examine, judge
from utils.errors import MediaError
from utils.feedback.feature_set import CachedItem
from utils.feedback.trainable import VIT_COLUMN
from utils.phash import perceptual_hash
from utils.weights import frozen_fingerprint, verify_version, weights_root

BATCH = 16


@dataclass(frozen=True)
class Prepared:
    """What a file gives to learn from.

    Args:
        item: its features; None when it is outside the domain.
        reason: then one sentence why; empty otherwise.
        phash: perceptual hash of its first frame; None when it could not be decoded.
        face: number of the face that the features are of.
    """

    item: CachedItem | None
    reason: str
    phash: int | None
    face: int | None = None


def prepare_item(path: Path, analyser: Analyser, *, face: int | None = None) -> Prepared:
    """Make the features of the face that decides about a file.

    Args:
        path: the file; its name is never trusted.
        analyser: from `load_analyser`.
        face: number of the face that the user's label is about; None takes the most suspicious one that is large
            enough, whose verdict was that of the file.

    Returns:
        Features, or the reason why there are none.
    """
    try:
        people = examine(path, analyser, keep_pixels=True)
    except MediaError as error:
        return Prepared(None, f"The file could not be decoded: {error.detail}", None)
    phash = perceptual_hash(people.media.frames[0].pixels)
    report = judge(people, analyser)
    if report.deciding is None:
        return Prepared(None, "No face was found.", phash)
    chosen = report.deciding if face is None else next((f for f in report.faces if f.id == face), None)
    if chosen is None:
        return Prepared(None, f"There is no face number {face}.", phash)
    if not chosen.large_enough:
        return Prepared(None, f"The face is less than {analyser.settings.media.min_face_px} pixels wide.", phash)
    person = next(person for person in people.judged if person.track.id == chosen.id)
    version = verify_version(weights_root(analyser.settings), analyser.version)
    return Prepared(_features(person, analyser, frozen_fingerprint(version)), "", phash, chosen.id)


def _features(person: Person, analyser: Analyser, fingerprint: str) -> CachedItem:
    networks = analyser.engine.networks
    device = str(next(networks.parameters()).device)
    logits, tokens = raw_features(np.stack([crop.pixels for crop in person.crops]), networks, device)
    return CachedItem(tokens, logits, person.quality.mean(0).astype(np.float32), fingerprint)


def raw_features(
    pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], ensemble: Ensemble, device: str = "cpu"
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]], np.ndarray[tuple[int, ...], np.dtype[np.float16]]]:
    """Raw logits of all experts over the crops of one person, and the ViT's tokens of each crop.

    Args:
        pixels: (T, S, S, 3) uint8 crops in time order.
        ensemble: the networks.
        device: where they are.

    Returns:
        (E,) float32, NaN where an expert is missing, and (T, L, 2D) float16; without a ViT (T, 1, 1) zeros.
    """
    vit = dict(ensemble.experts.items()).get("vit")
    others = Ensemble(
        experts={n: m for n, m in ensemble.experts.items() if n != "vit"} or dict(ensemble.experts.items()),
        gate=ensemble.gate,
        tiny=ensemble.tiny,
    ).eval()
    logits, features, tokens = [], [], []
    with torch.inference_mode():
        for low in range(0, len(pixels), BATCH):
            images = to_images(pixels[low : low + BATCH]).to(device)
            of_batch, feature = others.expert_logits(images)
            if isinstance(vit, ViTExpert):
                tapped = vit.tap(prepare(images, expert_card("vit", tiny=ensemble.tiny)))
                of_batch[:, VIT_COLUMN] = vit.head(tapped).logit
                tokens.append(tapped.cpu().numpy().astype(np.float16))
            logits.append(of_batch.cpu())
            if feature is not None:
                features.append(feature)
        whole = torch.cat(logits).mean(0)
        sequence = ensemble.sequence_logit(torch.cat(features) if features else None)
        whole[EXPERT_NAMES.index("lstm")] = sequence.cpu()
    held = np.concatenate(tokens) if tokens else np.zeros((len(pixels), 1, 1), np.float16)
    return whole.numpy().astype(np.float32), held
