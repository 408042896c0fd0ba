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
from utils.detection.pipeline import Analyser, Scores, examine, make_report, score
from utils.errors import MediaError
from utils.feedback.feature_set import CachedItem
from utils.phash import perceptual_hash
from utils.types import Media, MediaKind, Report
from utils.weights import frozen_fingerprint, verify_version, weights_root

NO_FACE = "No face was found."
SPEECH_LEARNS_NOT = "The network of speech does not learn from feedback yet; the vote is kept and counted."


@dataclass(frozen=True)
class Prepared:
    """What a file gives to learn from.

    Args:
        faces: per face that was asked for its features, or one sentence why there are none.
        phash: perceptual hash of its first frame; None when it could not be decoded.
        deciding: number of the most suspicious face that can be judged, whose verdict is that of the file.
    """

    faces: Mapping[int | None, CachedItem | str]
    phash: int | None
    deciding: int | None = None


def prepare_faces(
    path: Path, analyser: Analyser, faces: Sequence[int | None] = (None,), fingerprint: str = ""
) -> Prepared:
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
    if people.media.info.kind is MediaKind.AUDIO:
        return chosen(Prepared({None: SPEECH_LEARNS_NOT}, None), faces)
    (scores,) = score([people], analyser)
    report = make_report(people, scores, analyser)
    return chosen(prepared(people, scores, report, next(iter(hashes), None), analyser.engine, fingerprint), faces)


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
        return Prepared({None: SPEECH_LEARNS_NOT if report.speech and not report.faces else NO_FACE}, phash)
    made: dict[int | None, CachedItem | str] = {}
    for face, person, of_person in zip(report.faces, people.judged, scores.people, strict=True):
        made[face.id] = face.verdict.reasons[0].text
        if face.judged and of_person.answers is not None:
            made[face.id] = _features(person, of_person.answers, engine, fingerprint)
    return Prepared({**made, None: made[report.deciding.id]}, phash, report.deciding.id)


def chosen(whole: Prepared, faces: Sequence[int | None]) -> Prepared:
    """The faces that are asked for; what stands for the whole file stands for each of them where no face was found."""
    missing = whole.faces[None] if whole.deciding is None else None
    picked = {face: whole.faces.get(face, missing or f"There is no face number {face}.") for face in faces}
    return replace(whole, faces=picked)


def _features(person: Person, answers: Answers, engine: Engine, fingerprint: str) -> CachedItem:
    tokens = np.zeros((len(person.crops), 1, 1)) if answers.tokens is None else answers.tokens
    quality = person.quality.mean(0).astype(np.float32)
    return CachedItem(tokens.astype(np.float16), engine.person_logits(answers), quality, fingerprint)
