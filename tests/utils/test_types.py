"""Values that cannot exist invalid, and the report as everyone reads it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from utils import errors
from utils.errors import MediaError, TelltaleError, WeightsError
from utils.types import (
    Box,
    ExpertScore,
    Face,
    FaceReport,
    FaceTrack,
    Frame,
    FrameScore,
    Media,
    MediaInfo,
    MediaKind,
    Notice,
    Outcome,
    Report,
    Sighting,
    Verdict,
)

BOX = Box(1.234, 2, 30, 40)
FACE = Face(BOX, 0.9, np.zeros((5, 2), np.float32))
PIXELS = np.zeros((4, 6, 3), np.uint8)


def info(**changes: Any) -> MediaInfo:
    facts = {"kind": MediaKind.IMAGE, "format": "png", "mime": "image/png", "width": 6, "height": 4}
    return MediaInfo(**{**facts, "size_bytes": 9, "sha256": "0" * 64, **changes})


def expert(**changes: Any) -> ExpertScore:
    given = {"name": "cnn", "title": "CNN", "looks_at": "pixels", "available": True, "probability": 0.4, "weight": 1.0}
    return ExpertScore(**{**given, **changes})


def verdict(probability: float = 0.8) -> Verdict:
    return Verdict(Outcome.FAKE, "Fake.", probability, (0.7, 0.9), (Notice("above_band", "It is."),))


def face_report(number: int, *scores: FrameScore) -> FaceReport:
    quality = {"face_px": np.float32(29.5)}
    return FaceReport(id=number, verdict=verdict(), experts=(expert(),), frames=scores, quality=quality)


def report(*faces: FaceReport, deciding: int | None = 0, **changes: Any) -> Report:
    given = {"media": info(), "verdict": verdict(), "model_version": "v", "model_sha256": "f" * 64, "threshold": 0.5}
    return Report(**{**given, "faces": faces, "deciding_face": deciding, "times_ms": {"total": 1.5}, **changes})


@pytest.mark.parametrize(
    "build",
    [
        lambda: info(width=0),
        lambda: info(height=-1),
        lambda: info(size_bytes=-1),
        lambda: info(sha256="0"),
        lambda: info(duration_s=1.0),
        lambda: info(kind=MediaKind.VIDEO),
        lambda: Frame(-1, 0, PIXELS),
        lambda: Frame(0, -0.1, PIXELS),
        lambda: Frame(0, math.inf, PIXELS),
        lambda: Frame(0, 0, PIXELS[:, :, 0]),
        lambda: Frame(0, 0, PIXELS.astype(np.float32)),
        lambda: Media(info(), ()),
        lambda: Media(info(), (Frame(0, 0, PIXELS), Frame(1, 1, PIXELS))),
        lambda: Box(0, 0, 0, 5),
        lambda: Box(0, 5, 5, 5),
        lambda: Box(0, 0, math.nan, 5),
        lambda: Box(0, 0, math.inf, 5),
        lambda: Face(BOX, 1.1, FACE.landmarks),
        lambda: Face(BOX, 0.5, np.zeros((4, 2), np.float32)),
        lambda: FaceTrack(0, ()),
        lambda: FaceTrack(0, (Sighting(2, FACE), Sighting(1, FACE))),
        lambda: FaceTrack(0, (Sighting(1, FACE), Sighting(1, FACE))),
        lambda: expert(probability=None),
        lambda: expert(probability=math.nan),
        lambda: expert(available=False),
        lambda: expert(available=False, probability=None, weight=0.1),
        lambda: expert(weight=1.01),
        lambda: Verdict(Outcome.NO_FACE, "", 0.5, (0.4, 0.6)),
        lambda: Verdict(Outcome.FAKE, "", None, None),
        lambda: Verdict(Outcome.NO_FACE, "", None, (0.4, 0.6)),
        lambda: Verdict(Outcome.FAKE, "", 0.5, (0.6, 0.4)),
        lambda: Verdict(Outcome.FAKE, "", 0.5, (-0.1, 0.4)),
        lambda: Verdict(Outcome.FAKE, "", 1.5, (0.1, 0.4)),
        lambda: FrameScore(0, 0.0, math.nan, BOX),
        lambda: report(face_report(0), threshold=1.5),
        lambda: report(face_report(0), deciding=None),
        lambda: report(face_report(0), deciding=1),
        lambda: report(deciding=0),
    ],
)
def test_invalid_values_cannot_be_made(build):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (each case has its own sentence)
        build()
    assert str(caught.value)


def test_report_is_json_with_nested_and_flat_fields():
    scores = [FrameScore(i, i / 2, p, BOX) for i, p in enumerate((0.1, 0.9))]
    other = [FrameScore(1, 0.5, 0.3, BOX), FrameScore(2, 1.0, 0.6, BOX)]
    document = report(face_report(1, *other), face_report(0, *scores)).to_dict()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert {f.name for f in dataclasses.fields(Report)} < set(document)
    assert (document["prediction"], document["fake_probability"]) == ("fake", 0.8)
    assert document["real_probability"] == pytest.approx(0.2)
    assert document["confidence"] == 0.8
    assert [e["name"] for e in document["experts"]] == ["cnn"]
    assert [(p["frame"], p["probability"]) for p in document["timeline"]] == [(0, 0.1), (1, 0.9), (2, 0.6)]
    assert document["faces"][0]["frames"][0]["box"] == [1.23, 2, 30, 40]
    assert document["faces"][0]["quality"] == {"face_px": 29.5}
    assert document["media"]["kind"] == "image"
    assert document["verdict"]["reasons"] == [{"code": "above_band", "text": "It is."}]


def test_report_without_a_face_has_no_probability_anywhere():
    nothing = Verdict(Outcome.NO_FACE, "No face found", None, None)
    document = report(deciding=None, verdict=nothing).to_dict()
    assert document["prediction"] == "no_face"
    flat = ("fake_probability", "real_probability", "confidence", "deciding_face")
    assert [document[k] for k in flat] == [None] * 4
    assert (document["experts"], document["timeline"], document["faces"]) == ([], [], [])


def test_confidence_is_the_larger_of_the_two():
    assert report(face_report(0), verdict=verdict(0.1)).to_dict()["confidence"] == pytest.approx(0.9)


def test_box_measures():
    assert (Box(10, 20, 40, 100).width, Box(10, 20, 40, 100).height) == (30, 80)
    assert Box(10, 20, 40, 100).centre == (25, 60)


# Every error has a code of its own, a status, and a sentence that helps.

CLASSES = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, TelltaleError)]


@pytest.mark.parametrize("cls", CLASSES)
def test_each_error_is_complete(cls):
    problem = cls("The value is 7.", value=7).to_problem()
    assert problem["status"] in range(400, 600)
    assert problem["code"] == cls.code
    assert cls.code == cls.code.lower().replace(" ", "_")
    assert problem["type"] == f"urn:telltale:error:{cls.code}"
    assert (problem["detail"], problem["value"]) == ("The value is 7.", 7)
    assert cls.remedy.endswith(".")
    assert not cls.title.endswith(".")
    assert json.loads(json.dumps(problem)) == problem
    assert str(cls("The value is 7.")) == f"[{cls.code}] The value is 7. {cls.remedy}"


def test_codes_are_unique():
    assert [code for code, times in Counter(c.code for c in CLASSES if "code" in vars(c)).items() if times > 1] == []


def test_without_a_detail_the_title_speaks():
    assert errors.NotFoundError().detail == errors.NotFoundError.title


def test_families_can_be_caught_together():
    assert {c.status for c in CLASSES if issubclass(c, WeightsError)} == {503}
    assert all(400 <= c.status < 500 for c in CLASSES if issubclass(c, MediaError))
