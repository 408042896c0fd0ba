"""Reports for the page tests: two people, an open verdict, no face, and a clip of two people."""

from __future__ import annotations

import math
from typing import Any

from utils.types import (
    Box,
    ExpertScore,
    FaceReport,
    FrameScore,
    MediaInfo,
    MediaKind,
    Notice,
    Outcome,
    Report,
    Verdict,
)

PICTURE_SIZE = (960, 512)
CLIP_SIZE = (480, 256)
CLIP_SECONDS = 4.0
LEFT_FACE = (174.0, 62.0, 276.0, 190.0)
RIGHT_FACE = (684.0, 62.0, 786.0, 190.0)
LOOKS_AT = {
    "cnn": ("CNN", "fine noise that a camera leaves and a generator does not"),
    "resnext": ("ResNeXt-50", "texture of skin, hair and teeth"),
    "vit": ("ViT-B/16", "the face as a whole: light, shape, proportion"),
    "lstm": ("BiLSTM", "movement from frame to frame"),
}


def _experts(probabilities: dict[str, float], weights: dict[str, float], because: str) -> tuple[ExpertScore, ...]:
    return tuple(
        ExpertScore(
            name=name,
            title=title,
            looks_at=looks_at,
            available=name in probabilities,
            probability=probabilities.get(name),
            weight=weights.get(name, 0.0),
            missing_because=None if name in probabilities else because,
        )
        for name, (title, looks_at) in LOOKS_AT.items()
    )


def _info(kind: MediaKind, size: tuple[int, int]) -> MediaInfo:
    is_video = kind is MediaKind.VIDEO
    return MediaInfo(
        kind=kind,
        format="webm" if is_video else "jpeg",
        mime="video/webm" if is_video else "image/jpeg",
        width=size[0],
        height=size[1],
        size_bytes=2_481_003 if is_video else 148_220,
        sha256="4c1f9e0b" * 8,
        duration_s=CLIP_SECONDS if is_video else None,
        fps=12.0 if is_video else None,
        codec="vp8" if is_video else None,
    )


def _report(
    info: MediaInfo, verdict: Verdict, faces: tuple[FaceReport, ...], notices: tuple[Notice, ...] = ()
) -> Report:
    return Report(
        media=info,
        verdict=verdict,
        faces=faces,
        deciding_face=faces[0].id if faces else None,
        model_version="2026.11-a",
        model_sha256="b07d11ce" * 8,
        threshold=0.5,
        times_ms={"decode": 41.2, "detect": 88.0, "experts": 1312.5, "decide": 3.1, "total": 1444.8},
        notices=notices,
    )


FAKE = Verdict(
    Outcome.FAKE,
    "All networks that could examine this face find traces of manipulation.",
    0.93,
    (0.86, 0.97),
    (
        Notice("experts_agree", "The three networks agree: each of them puts the probability above 80 %."),
        Notice("high_quality", "The face is large and sharp enough for a dependable reading."),
    ),
)
REAL = Verdict(Outcome.REAL, "The networks find few traces of manipulation.", 0.08, (0.03, 0.17))
OPEN = Verdict(
    Outcome.INCONCLUSIVE,
    "The evidence does not allow a verdict either way.",
    0.47,
    (0.22, 0.71),
    (
        Notice("wide_interval", "The 95 % interval reaches over the decision point."),
        Notice("small_face", "The face is 43 pixels wide; below 64 pixels the networks err more often."),
    ),
)
NO_LSTM = "It examines movement, and a photo has none."
PHOTO_EXPERTS = _experts(
    {"cnn": 0.84, "resnext": 0.95, "vit": 0.91}, {"cnn": 0.19, "resnext": 0.46, "vit": 0.35}, NO_LSTM
)
REAL_EXPERTS = _experts(
    {"cnn": 0.31, "resnext": 0.05, "vit": 0.09}, {"cnn": 0.12, "resnext": 0.40, "vit": 0.48}, NO_LSTM
)


def _photo_face(face_id: int, verdict: Verdict, experts: tuple[ExpertScore, ...], box: Box) -> FaceReport:
    assert verdict.probability is not None
    frame = FrameScore(frame=0, time_s=0.0, probability=verdict.probability, box=box)
    quality = {"face_px": box.width, "blur": 5.31, "jpeg_quality": 88.0}
    return FaceReport(id=face_id, verdict=verdict, experts=experts, frames=(frame,), quality=quality)


def _clip_face(face_id: int, verdict: Verdict, base: tuple[float, ...], level: float, swing: float) -> FaceReport:
    """A person over sixteen frames, swaying with the picture as `media.make_clip` pans it."""
    frames = []
    for index in range(16):
        time_s = CLIP_SECONDS * (index + 0.5) / 16
        shift = pan(time_s)
        box = Box(base[0] / 2 - shift, base[1] / 2, base[2] / 2 - shift, base[3] / 2)
        wave = level + swing * math.sin(index * 0.9 + face_id)
        frames.append(FrameScore(frame=index, time_s=time_s, probability=min(max(wave, 0.01), 0.99), box=box))
    probabilities = {"cnn": level * 0.9, "resnext": level, "vit": level * 0.97, "lstm": level * 0.95}
    experts = _experts(probabilities, {"cnn": 0.1, "resnext": 0.3, "vit": 0.25, "lstm": 0.35}, "")
    quality = {"face_px": 51.0, "blur": 4.2}
    return FaceReport(id=face_id, verdict=verdict, experts=experts, frames=tuple(frames), quality=quality)


def pan(time_s: float) -> float:
    """How far the clip's picture has moved to the left at a time, pixels."""
    return 16.0 * math.sin(time_s * math.pi / 2)


REPORTS = {
    "portrait": _report(
        _info(MediaKind.IMAGE, PICTURE_SIZE),
        FAKE,
        (
            _photo_face(0, FAKE, PHOTO_EXPERTS, Box(*LEFT_FACE)),
            _photo_face(1, REAL, REAL_EXPERTS, Box(*RIGHT_FACE)),
        ),
    ),
    "open": _report(
        _info(MediaKind.IMAGE, PICTURE_SIZE),
        OPEN,
        (_photo_face(0, OPEN, PHOTO_EXPERTS, Box(*LEFT_FACE)),),
        (Notice("recompressed", "The picture was saved several times; traces may be lost."),),
    ),
    "landscape": _report(
        _info(MediaKind.IMAGE, PICTURE_SIZE),
        Verdict(Outcome.NO_FACE, "No face was found, so there is nothing to examine.", None, None),
        (),
    ),
    "clip": _report(
        _info(MediaKind.VIDEO, CLIP_SIZE),
        FAKE,
        (_clip_face(0, FAKE, LEFT_FACE, 0.88, 0.1), _clip_face(1, REAL, RIGHT_FACE, 0.14, 0.12)),
        (Notice("no_sound", "The video has no sound; only the picture is examined anyway."),),
    ),
}


def canned_closeup(face: int, report: Report, address: str) -> dict[str, Any]:
    """A closer look with one map (at `address`) worth showing, one that is not, and an expert that suspects nothing."""
    found = next(known for known in report.faces if known.id == face)
    frame = found.frames[len(found.frames) // 2]
    b = frame.box
    known = {"method": "Grad-CAM", "gain": 1.2, "random_gain": 0.4, "masks": 9}
    verdict = {"outcome": found.verdict.outcome.value, "probability": found.verdict.probability}
    other = {"outcome": "inconclusive", "probability": 0.52}
    maps = [
        {"expert": "cnn", "title": "CNN", "heatmap": None, "beaten": 0, "faithful": False},
        {"expert": "resnext", "title": "ResNeXt-50", "heatmap": address, "beaten": 4, "faithful": False},
        {"expert": "vit", "title": "ViT-B/16", "heatmap": address, "beaten": 9, "faithful": True},
    ]
    return {
        "face": face,
        "frame": frame.frame,
        "time_s": frame.time_s,
        "square": [b.x0, b.y0, b.x1, b.y1],
        "model_version": report.model_version,
        "maps": [{**known, **entry} for entry in maps],
        "trials": [
            {"code": "as_is", "title": "As it is", "flipped": False, **verdict},
            {"code": "jpeg", "title": "Saved again", "flipped": True, **other},
            {"code": "half_size", "title": "Scaled", "flipped": False, **verdict},
        ],
    }
