"""What the analyses of the page's tests find: two people, an open verdict, no face, and a clip of two people."""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from models.cards import EXPERT_NAMES, expert_card
from tests.browser.media import CLIP_SECONDS, CLIP_SIZE, PICTURE_SIZE, make_heatmap, pan
from tests.web_app import helpers
from utils.detection.verdict import fuse
from utils.media.sniff import sniff
from utils.types import Box, ExpertScore, FaceReport, FrameScore, MediaKind, Notice, Outcome, Report, Span, Verdict

LEFT_FACE = (174.0, 62.0, 276.0, 190.0)
RIGHT_FACE = (684.0, 62.0, 786.0, 190.0)
FAKE = Verdict(
    Outcome.FAKE, "Traces of manipulation.", 0.93, (0.86, 0.97),
    (Notice("experts_agree", "The three networks agree."), Notice("high_quality", "The face is large and sharp.")),
)  # fmt: skip
REAL = Verdict(Outcome.REAL, "Few traces of manipulation.", 0.08, (0.03, 0.17))
OPEN = Verdict(
    Outcome.INCONCLUSIVE, "No verdict either way.", 0.47, None,
    (Notice("small_face", "The face is 43 pixels wide."), Notice("corrections_remembered", "Users corrected it.")),
)  # fmt: skip
CUT = Verdict(
    Outcome.INCONCLUSIVE, "Not judged: cut by the border", 0.97, (0.86, 0.99),
    (Notice("face_cut", "The border of the picture cuts the face."),),
)  # fmt: skip
NO_FACE = Verdict(Outcome.NO_FACE, "No face was found.", None, None)
VOICED = b"|voiced|"
"""In a clip: somebody speaks in it."""
PHOTO, CLIP = ("cnn", "resnext", "vit"), ("cnn", "resnext", "vit", "lstm")


def _face(
    face_id: int,
    verdict: Verdict,
    experts: tuple[str, ...],
    frames: tuple[FrameScore, ...],
    spans: tuple[Span, ...] = (),
) -> FaceReport:
    assert verdict.probability is not None
    scores = tuple(
        ExpertScore(
            name=name,
            title=expert_card(name).title,
            looks_at=expert_card(name).looks_at,
            available=name in experts,
            probability=verdict.probability if name in experts else None,
            weight=1 / len(experts) if name in experts else 0.0,
            missing_because=None if name in experts else "It examines movement, and a photo has none.",
        )
        for name in EXPERT_NAMES
    )
    quality = {"face_px": frames[0].box.width, "blur": 5.31}
    return FaceReport(id=face_id, verdict=verdict, experts=scores, frames=frames, quality=quality, spans=spans)


def _still(probability: float, box: tuple[float, ...]) -> tuple[FrameScore, ...]:
    return (FrameScore(frame=0, time_s=0.0, probability=probability, box=Box(*box)),)


def _moving(level: float, box: tuple[float, ...]) -> tuple[FrameScore, ...]:
    """A person over sixteen frames, swaying with the picture as `media.make_clip` pans it."""
    frames = []
    for index in range(16):
        time_s = CLIP_SECONDS * (index + 0.5) / 16
        x0, y0, x1, y1 = (side / 2 for side in box)
        place = Box(x0 - pan(time_s), y0, x1 - pan(time_s), y1)
        probability = min(max(level + 0.1 * math.sin(index * 0.9), 0.01), 0.99)
        frames.append(FrameScore(frame=index, time_s=time_s, probability=probability, box=place))
    return tuple(frames)


FOUND: Mapping[str, tuple[FaceReport, ...]] = {
    "portrait": (
        _face(0, FAKE, PHOTO, _still(0.93, LEFT_FACE)),
        _face(1, REAL, PHOTO, _still(0.08, RIGHT_FACE)),
    ),
    "bystander": (
        _face(0, REAL, PHOTO, _still(0.08, LEFT_FACE)),
        dataclasses.replace(_face(1, CUT, PHOTO, _still(0.97, RIGHT_FACE)), judged=False),
    ),
    "open": (_face(0, OPEN, PHOTO, _still(0.47, LEFT_FACE)),),
    "landscape": (),
    "spoken": (),
    "clip": (
        _face(0, FAKE, CLIP, _moving(0.88, LEFT_FACE), (Span(1.0, 2.5),)),
        _face(1, REAL, CLIP, _moving(0.14, RIGHT_FACE)),
    ),
}  # fmt: skip


def make_report(content: bytes, scenario: str, notices: tuple[Notice, ...]) -> Report:
    """The report of a file on which the networks have found what the scenario says."""
    faces, kind = FOUND[scenario], sniff(content)
    if kind.kind is MediaKind.AUDIO or scenario == "spoken":  # a microphone's WebM looks like a video's
        return helpers.make_voice_report(content, Outcome.FAKE)
    verdict = faces[0].verdict if faces else NO_FACE
    report = helpers.make_report(content, verdict.outcome, kind.kind)
    width, height = CLIP_SIZE if kind.kind is MediaKind.VIDEO else PICTURE_SIZE
    info = dataclasses.replace(report.media, format=kind.name, mime=kind.mime, width=width, height=height)
    if scenario == "open":
        notices = (*notices, Notice("recompressed", "The picture was saved several times; traces may be lost."))
    said = helpers.make_provenance() if scenario == "portrait" else None
    report = dataclasses.replace(report, media=info, verdict=verdict, faces=faces, notices=notices, provenance=said)
    if VOICED not in content:
        return report
    voice = helpers.make_voice(Outcome.FAKE if scenario == "bystander" else Outcome.REAL)
    return dataclasses.replace(report, speech=voice, overall=fuse(verdict, voice.verdict))


LIPS = {
    "code": "does_not_fit",
    "text": "The mouth does not move with the voice: somebody else speaks, or the voice or the lips were replaced.",
    "correlation": 0.041,
    "lag_s": 0.12,
    "spans": [[0.0, 3.0], [7.0, 10.0]],
}


def make_closeup(report: Mapping[str, Any], face_id: int) -> dict[str, Any]:
    """A closer look with one map worth showing, one that is not, and an expert that suspects nothing."""
    face = next(face for face in report["faces"] if face["id"] == face_id)
    frame = face["frames"][len(face["frames"]) // 2]
    known = {"method": "Grad-CAM", "gain": 1.2, "random_gain": 0.4, "masks": 9}
    png = base64.b64encode(make_heatmap()).decode()
    maps = [
        {"expert": "cnn", "title": "CNN", "png": None, "beaten": 0, "faithful": False},
        {"expert": "resnext", "title": "ResNeXt-50", "png": png, "beaten": 4, "faithful": False},
        {"expert": "vit", "title": "ViT-B/16", "png": png, "beaten": 9, "faithful": True},
    ]
    as_is = {"outcome": face["verdict"]["outcome"], "probability": face["verdict"]["probability"], "flipped": False}
    other = {"outcome": "inconclusive", "probability": 0.52, "flipped": True}
    return {
        "face": face_id,
        "frame": frame["frame"],
        "time_s": frame["time_s"],
        "square": frame["box"],
        "model_version": report["model_version"],
        "maps": [{**known, **entry} for entry in maps],
        "trials": [
            {"code": "as_is", "title": "As it is", **as_is},
            {"code": "jpeg", "title": "Saved again", **other},
            {"code": "half_size", "title": "Scaled", **as_is},
        ],
        "lips": LIPS if report["media"]["kind"] == "video" else None,
    }
