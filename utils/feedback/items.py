"""From an uploaded file to cached features that can be learned from, or to a sentence why not.

The steps are those of the analysis (`utils.detection.pipeline`); of the faces that count, the ViT's tokens are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.detection.people import Person
from utils.detection.pipeline import Analyser, examine, judge
from utils.errors import MediaError
from utils.feedback.feature_set import CachedItem
from utils.phash import perceptual_hash
from utils.types import MediaKind
from utils.weights import frozen_fingerprint, verify_version, weights_root

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


def prepare_faces(path: Path, analyser: Analyser, faces: Sequence[int | None] = (None,)) -> Prepared:
    """Make the features of faces of a file, which is decoded once.

    Args:
        path: the file; its name is never trusted.
        analyser: from `load_analyser`.
        faces: numbers of the faces that users' labels are about; None stands for the deciding one.
    """
    try:
        people = examine(path, analyser, keep_pixels=True)
    except MediaError as error:
        return Prepared(dict.fromkeys(faces, f"The file could not be decoded: {error.detail}"), None)
    if people.media.info.kind is MediaKind.AUDIO:
        return Prepared(dict.fromkeys(faces, SPEECH_LEARNS_NOT), None)
    phash = perceptual_hash(people.media.frames[0].pixels)
    report = judge(people, analyser)
    if report.deciding is None:
        return Prepared(dict.fromkeys(faces, "No face was found."), phash)
    fingerprint = frozen_fingerprint(verify_version(weights_root(analyser.settings), analyser.version))
    found: dict[int, CachedItem | str] = {}
    numbers = {face: report.deciding.id if face is None else face for face in faces}
    for wanted in set(numbers.values()):
        chosen = next((f for f in report.faces if f.id == wanted), None)
        if chosen is None:
            found[wanted] = f"There is no face number {wanted}."
        elif not chosen.judged:
            found[wanted] = chosen.verdict.reasons[0].text
        else:
            person = next(person for person in people.judged if person.track.id == wanted)
            found[wanted] = _features(person, analyser, fingerprint)
    return Prepared({face: found[number] for face, number in numbers.items()}, phash, report.deciding.id)


def _features(person: Person, analyser: Analyser, fingerprint: str) -> CachedItem:
    answers = analyser.engine.run([crop.pixels for crop in person.crops])
    tokens = np.zeros((len(person.crops), 1, 1)) if answers.tokens is None else answers.tokens
    quality = person.quality.mean(0).astype(np.float32)
    return CachedItem(tokens.astype(np.float16), analyser.engine.person_logits(answers), quality, fingerprint)
