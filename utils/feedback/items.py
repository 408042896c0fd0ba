"""From an uploaded file to cached features that can be learned from, or to a sentence why not.

The same steps as the analysis (`utils.detection.pipeline`), with the ViT's tokens kept instead of its verdict alone.
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
from utils.detection.pipeline import Analyser, find_people, measure_crop
from utils.errors import MediaError, TrainingDataError
from utils.faces.crops import FaceCrop, crop_for_networks
from utils.feedback.feature_set import CachedItem
from utils.feedback.trainable import VIT_COLUMN
from utils.fingerprint import frozen_fingerprint
from utils.media import decode_media
from utils.phash import perceptual_hash
from utils.types import Media
from utils.weights import verify_version, weights_root

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

    Raises:
        TrainingDataError: the analyser's networks cannot be looked into.
    """
    networks = getattr(analyser.engine, "networks", None)
    if networks is None:
        raise TrainingDataError("The engine does not give its networks away, so no features can be made.")
    try:
        media = decode_media(path, analyser.settings.media, analyser.settings.sandbox, analyser.decoders)
    except MediaError as error:
        return Prepared(None, f"The file could not be decoded: {error.detail}", None)
    phash = perceptual_hash(media.frames[0].pixels)
    crops = _crops(media, analyser)
    if not crops:
        return Prepared(None, "No face was found.", phash)
    least = analyser.settings.media.min_face_px
    larger = media.info.width / media.frames[0].pixels.shape[1]
    big = {i: c for i, c in crops.items() if float(np.median([x.source_px for x in c])) * larger >= least}
    if face is not None and face not in crops:
        return Prepared(None, f"There is no face number {face}.", phash)
    if (face is not None and face not in big) or not big:
        return Prepared(None, f"The face is less than {least} pixels wide.", phash)
    wanted = big if face is None else {face: big[face]}
    version = verify_version(weights_root(analyser.settings), analyser.version)
    fingerprint = frozen_fingerprint(version)
    made = {i: _features(c, networks, fingerprint) for i, c in wanted.items()}
    chosen = max(made, key=lambda i: made[i][1])
    return Prepared(made[chosen][0], "", phash, chosen)


def _crops(media: Media, analyser: Analyser) -> dict[int, list[FaceCrop]]:
    """Crops per person, by the number of the track."""
    people = find_people(media, analyser, lambda stage, done: None)
    return {t.id: [crop_for_networks(media.frames[s.frame].pixels, s.face) for s in t.sightings] for t in people}


def _features(crops: list[FaceCrop], networks: Ensemble, fingerprint: str) -> tuple[CachedItem, float]:
    """Features of one person, and the calibrated logit that they give."""
    quality = np.stack([measure_crop(crop) for crop in crops])
    device = str(next(networks.parameters()).device)
    logits, tokens = raw_features(np.stack([crop.pixels for crop in crops]), networks, device)
    with torch.inference_mode():
        mixed = networks.gate(torch.from_numpy(logits)[None], torch.from_numpy(quality.mean(0))[None])
    item = CachedItem(tokens, logits, quality.mean(0).astype(np.float32), fingerprint)
    return item, float(mixed.logit[0])


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
