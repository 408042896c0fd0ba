"""From the scores of one person to what is said about them; `pipeline.make_report` puts these together.

Beside real or fake a face may be covered, or no photograph at all. A cover hides a manipulation as well as it looks
like one, and of paintings, drawings, statues and negatives the networks know nothing. Linear probes read both from the
tokens that the ViT computes anyway; docs/models.md says how they were fitted.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.cards import EXPERT_NAMES, expert_card
from utils.base_weights import require_file
from utils.detection.engine import TrackScores
from utils.detection.moments import part_notice, seen_notice, spans_of
from utils.detection.people import Person
from utils.detection.verdict import NOT_FOR_PHOTOS, TOO_SHORT, decide, remembered_notice
from utils.faces.crops import QUALITY_NAMES
from utils.faces.judgeable import as_stored, enlargement, face_size
from utils.metrics import sigmoid
from utils.tensors import read_tensors
from utils.types import ExpertScore, FaceReport, Floats, FrameScore, Media, MediaKind, Notice

if TYPE_CHECKING:
    from utils.detection.pipeline import Analyser


@dataclass(frozen=True)
class Probe:
    """A linear rule on the tokens of the ViT's frozen backbone, which outlives versions; those with LayerNorms of their
    own give it tokens that it was not fitted on.

    Args:
        path: of its weights, (L, 2D), and offset.
        sha256: of the file that its command made; with other bytes nothing is analysed.
        notice: what is said of a face from a probability of .5.
    """

    path: Path
    sha256: str
    notice: Notice

    def probability(self, tokens: Floats | None) -> float:
        """The mean over a person's crops, 0..1; 0 without tokens of the real ViT."""
        held = read_probe(self.path, self.sha256)
        if tokens is None or tokens.shape[1:] != held["weight"].shape:
            return 0.0
        logits = np.tensordot(tokens.astype(np.float32), held["weight"], 2) + float(held["bias"][0])
        return float(np.mean([sigmoid(float(v)) for v in logits]))

    def says(self, tokens: Floats | None) -> Notice | None:
        """The notice, where it is likely."""
        return self.notice if self.probability(tokens) >= 0.5 else None


COVER = Probe(
    Path(__file__).with_name("cover.safetensors"),
    "22501c22e4f7be65597072b916afe381ffd29a25902690aa241208008d50c8a5",
    Notice("face_covered", "Something seems to cover part of the face, such as sunglasses, a mask or a hand."),
)
"""Fitted by `python -m benchmarks.fit_cover`; such a face is not called fake."""
NO_PHOTO = Probe(
    Path(__file__).with_name("no_photo.safetensors"),
    "f6b39febcd17823296dec9656aabb7a512554e23997fa6935b00fc7f49f7959d",
    Notice("no_photograph", "This looks like a painting, a drawing, a statue or a negative and not like a photo."),
)
"""Fitted by `python -m benchmarks.fit_no_photo`; such a face is not judged."""


@functools.cache
def read_probe(path: Path, sha256: str) -> dict[str, Floats]:
    """A probe's weights and offset.

    Raises:
        WeightsError: the file is missing or has other bytes.
    """
    return read_tensors(require_file(path, sha256))


HDR_CHOICES = 5
"""HDR is called fake where the most suspicious of so many would be (1.21 in logits): docs/models.md."""


def report_face(person: Person, score: TrackScores, media: Media, turns: float, analyser: Analyser) -> FaceReport:
    """What is said about one person: from the ensemble's scores and the crops' quality to the verdict."""
    experts = _expert_scores(score, media, analyser)
    tokens = score.answers.tokens if score.answers else None
    obstacle = person.obstacle or NO_PHOTO.says(tokens)
    sightings = person.track.sightings
    spans, part = spans_of([s.frame for s in sightings], media, score.part), score.part
    is_hdr = any(notice.code == "hdr" for notice in media.notices)
    verdict = decide(
        score.logit,
        experts,
        analyser.calibration,
        threshold=analyser.settings.detection.threshold,
        obstacle=obstacle,
        cover=COVER.says(tokens),
        part=part_notice(score, spans),
        choices=turns * (1.0 if part is None else len(part) / int(part.sum())) * (HDR_CHOICES if is_hdr else 1),
    )
    seen = seen_notice(media, len(sightings), spans if part is None else ())
    frames = tuple(
        FrameScore(s.frame, media.frames[s.frame].time_s, sigmoid(float(logit)), as_stored(s.face.box, media))
        for s, logit in zip(sightings, score.frame_logits, strict=True)
    )
    means = {n: round(float(value), 4) for n, value in zip(QUALITY_NAMES, person.quality.mean(0), strict=True)}
    quality = {"face_px": round(face_size(person.track) * enlargement(media), 1), **means}
    remembered = remembered_notice(sigmoid(score.logit - score.recalled), sigmoid(score.logit), "faces")
    verdict = replace(
        verdict, reasons=verdict.reasons + seen + remembered, interval=None if remembered else verdict.interval
    )
    return FaceReport(
        id=person.track.id, verdict=verdict, experts=experts, frames=frames, quality=quality, spans=spans,
        judged=obstacle is None,
    )  # fmt: skip


def _expert_scores(score: TrackScores, media: Media, analyser: Analyser) -> tuple[ExpertScore, ...]:
    out = []
    for i, name in enumerate(EXPERT_NAMES):
        card, logit = expert_card(name), float(score.expert_logits[i])
        available = not np.isnan(logit)
        why = analyser.missing.get(name, TOO_SHORT)
        if name == "lstm" and media.info.kind is MediaKind.IMAGE:
            why = NOT_FOR_PHOTOS  # also when it is not loaded: nothing is missed
        out.append(
            ExpertScore(
                name=name,
                title=card.title,
                looks_at=card.looks_at,
                available=available,
                probability=sigmoid(logit) if available else None,
                weight=float(np.clip(score.weights[i], 0, 1)),
                missing_because=None if available else why,
            )
        )
    return tuple(out)
