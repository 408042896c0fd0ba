"""From an uploaded file to cached features that can be learned from, or to a sentence why not.

The steps are those of the analysis (`utils.detection.pipeline`); of the face that counts, the ViT's tokens are
kept, as the engine that serves computes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.detection.pipeline import Analyser, examine, judge
from utils.errors import MediaError
from utils.feedback.feature_set import CachedItem
from utils.phash import perceptual_hash
from utils.weights import frozen_fingerprint, verify_version, weights_root


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
    answers = analyser.engine.run([crop.pixels for crop in person.crops])
    tokens = np.zeros((len(person.crops), 1, 1)) if answers.tokens is None else answers.tokens
    quality = person.quality.mean(0).astype(np.float32)
    logits = analyser.engine.person_logits(answers)
    item = CachedItem(tokens.astype(np.float16), logits, quality, frozen_fingerprint(version))
    return Prepared(item, "", phash, chosen.id)
