"""From an uploaded file to cached features that can be learned from, or to a sentence why not.

The steps are those of the analysis (`utils.detection.pipeline`); of the faces that count, the ViT's tokens are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from utils.detection.engine import Answers, Engine
from utils.detection.people import People, Person
from utils.detection.pipeline import NO_SPEECH_NETWORK, Analyser, Scores, decode, examine, make_report, score
from utils.errors import MediaError
from utils.feedback.feature_set import CachedItem
from utils.feedback.quarantine import VOICE
from utils.phash import perceptual_hash
from utils.types import Media, Report
from utils.weights import frozen_fingerprint, verify_version, weights_root

Part = int | str | None
"""Number of a face; None stands for the deciding one, `VOICE` for the voice."""
NO_FACE = "No face was found."
NO_SPEECH = "Less than half a second of speech was found."
KEPT_WINDOWS = 120
"""Of a recording, evenly spread."""


@dataclass(frozen=True)
class Prepared:
    """What a file gives to learn from.

    Args:
        faces: per face that was asked for its features, or one sentence why there are none.
        phash: perceptual hash of its first frame; None when it could not be decoded.
        deciding: number of the most suspicious face that can be judged, whose verdict is that of the file.
    """

    faces: Mapping[Part, CachedItem | str]
    phash: int | None
    deciding: int | None = None


def prepare_faces(path: Path, analyser: Analyser, faces: Sequence[Part] = (None,), fingerprint: str = "") -> Prepared:
    """Make the features of faces of a file, which is decoded once.

    Args:
        path: the file; its name is never trusted.
        faces: numbers of the faces that users' labels are about; None stands for the deciding one.
        fingerprint: of the networks, where the caller knows it (`frozen_fingerprint`).
    """
    hashes: list[int] = []
    try:
        people = examine(path, analyser, keep_pixels=True, on_media=lambda media: hashes.extend(hash_of(media)))
    except MediaError as error:
        return Prepared(dict.fromkeys(faces, f"The file could not be decoded: {error.detail}"), None)
    if not fingerprint:
        fingerprint = frozen_fingerprint(verify_version(weights_root(analyser.settings), analyser.version))
    (scores,) = score([people], analyser)
    report = make_report(people, scores, analyser)
    return chosen(prepared(people, scores, report, next(iter(hashes), None), analyser.engine, fingerprint), faces)


def prepare_voice(path: Path, analyser: Analyser) -> Prepared:
    """Make the features of a recording's voice, or of that of a video.

    Raises:
        MediaError: it cannot be decoded.
    """
    if analyser.speech is None:
        return Prepared({VOICE: NO_SPEECH_NETWORK}, None)
    samples = decode(path, analyser, sound=True).samples
    heard = None if samples is None else analyser.speech.listen(samples)
    if heard is None or not heard.starts:
        return Prepared({VOICE: NO_SPEECH}, None)
    kept = np.unique(np.linspace(0, len(heard.starts) - 1, KEPT_WINDOWS).round().astype(np.int64))
    windows, none = heard.features[kept, None].astype(np.float16), np.zeros(1, np.float32)
    return Prepared({VOICE: CachedItem(windows, none, none, frozen_fingerprint(analyser.speech.version))}, None)


def hash_of(media: Media) -> list[int]:
    """The perceptual hash of the first frame; nothing for a recording."""
    return [perceptual_hash(media.frames[0].pixels)] if media.frames else []


def prepared(
    people: People, scores: Scores, report: Report, phash: int | None, engine: Engine, fingerprint: str
) -> Prepared:
    """What an analysis gives to learn from, of all its faces, without asking the networks again.

    Args:
        phash: of its first frame.
        fingerprint: of its networks (`frozen_fingerprint`).
    """
    if report.deciding is None:
        return Prepared({None: NO_FACE}, phash)
    made: dict[Part, CachedItem | str] = {}
    for face, person, of_person in zip(report.faces, people.judged, scores.people, strict=True):
        made[face.id] = face.verdict.reasons[0].text
        if face.judged and of_person.answers is not None:
            made[face.id] = _features(person, of_person.answers, engine, fingerprint)
    return Prepared({**made, None: made[report.deciding.id]}, phash, report.deciding.id)


def chosen(whole: Prepared, faces: Sequence[Part]) -> Prepared:
    """The faces that are asked for; what stands for the whole file stands for each of them where no face was found."""
    missing = whole.faces[None] if whole.deciding is None else None
    picked = {face: whole.faces.get(face, missing or f"There is no face number {face}.") for face in faces}
    return replace(whole, faces=picked)


def _features(person: Person, answers: Answers, engine: Engine, fingerprint: str) -> CachedItem:
    tokens = np.zeros((len(person.crops), 1, 1)) if answers.tokens is None else answers.tokens
    quality = person.quality.mean(0).astype(np.float32)
    return CachedItem(tokens.astype(np.float16), engine.person_logits(answers), quality, fingerprint)
