"""The values that cross the borders of our rooms: media, faces, scores, verdicts and the report.

Everyone may import this file; it imports nothing of ours but `media_types.py`. Every value is
frozen and checks itself, so that a function that receives one need not check it again.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from utils.media_types import (
    SAMPLE_RATE,
    Box,
    Face,
    FaceTrack,
    Floats,
    Frame,
    Media,
    MediaInfo,
    MediaKind,
    Notice,
    Pixels,
    Provenance,
    Sighting,
    SoundInfo,
    check_probability,
    require,
)  # fmt: skip

__all__ = [
    "SAMPLE_RATE", "Box", "Face", "FaceTrack", "Floats", "Frame", "Media", "MediaInfo", "MediaKind", "Notice", "Pixels",
    "Sighting", "SoundInfo",
]  # fmt: skip
"""What of `media_types.py` is handed on."""

REPORT_SCHEMA_VERSION = 1
DOCUMENT, DOCUMENT_VERSION = "telltale-report", 1  # a report that stands by itself says so
CASE_DOCUMENT, MANIFEST_DOCUMENT = "telltale-case", "telltale-manifest"  # many reports; files of an export


class Outcome(enum.StrEnum):
    """What we say about a face or a whole medium.

    `NO_FACE` and, of a recording, `NO_SPEECH` stand beside the three verdicts: there was nothing to judge, so there is
    no probability.
    """

    FAKE = "fake"
    REAL = "real"
    INCONCLUSIVE = "inconclusive"
    NO_FACE = "no_face"
    NO_SPEECH = "no_speech"

    @property
    def judged(self) -> bool:
        """Whether there was something to judge."""
        return self not in (Outcome.NO_FACE, Outcome.NO_SPEECH)


@dataclass(frozen=True, kw_only=True)
class ExpertScore:
    """What one expert says of one face.

    Args:
        name: registry name (`cnn`, `resnext`, `vit`, `lstm`).
        title: for people, such as `CNN`.
        looks_at: what this expert examines, a short phrase.
        available: False when the expert is missing; then probability is None, weight 0 and `missing_because` says why.
        probability: calibrated probability of fake by this expert alone, 0..1.
        weight: share of this expert in the gate's mixture, 0..1; the shares of the available experts sum to 1.
        missing_because: one sentence, or None.
        skipped: always False; programs that read the JSON know the field.
    """

    name: str
    title: str
    looks_at: str
    available: bool
    probability: float | None
    weight: float
    missing_because: str | None = None
    skipped: bool = False

    def __post_init__(self) -> None:
        check_probability(self.probability, "probability")
        check_probability(self.weight, "weight")
        require(self.available == (self.probability is not None), "exactly the available experts have a probability")
        require(self.available or self.weight == 0.0, "a missing expert has weight 0")


@dataclass(frozen=True)
class Verdict:
    """The decision about a face or a medium, with everything needed to explain it.

    Args:
        outcome: fake, real, inconclusive, no_face or no_speech.
        probability: calibrated probability of fake, 0..1; None where nothing was judged.
        interval: 95 % interval of the probability (low, high), as measured on validation data; None where nothing was
            judged, and where corrections moved the probability, since nothing was measured of that.
        reasons: why this outcome, the most important first.
    """

    outcome: Outcome
    headline: str
    probability: float | None
    interval: tuple[float, float] | None
    reasons: tuple[Notice, ...] = ()

    def __post_init__(self) -> None:
        check_probability(self.probability, "probability")
        require(self.outcome.judged != (self.probability is None), "exactly what was judged has a probability")
        require(self.probability is not None or self.interval is None, "an interval belongs to a probability")
        if self.interval is not None:
            low, high = self.interval
            require(0.0 <= low <= high <= 1.0, f"interval must be ordered within 0..1: {self.interval}")


@dataclass(frozen=True)
class SpeechWindow:
    """The calibrated probability of fake of one window of a recording, seconds from its start."""

    start_s: float
    end_s: float
    probability: float

    def __post_init__(self) -> None:
        check_probability(self.probability, "probability")
        require(0.0 <= self.start_s < self.end_s, f"a window must have a length: {self.start_s} to {self.end_s}")


@dataclass(frozen=True, kw_only=True)
class SpeechReport:
    """The answer of `utils.speech.judge`: one recording, its windows, one verdict.

    Args:
        verdict: about the whole recording; `no_speech` where there is too little of it.
        windows: those with speech in them, in time order; they overlap.
        speech_s: seconds in which the detector of voices hears one.
        duration_s: of the recording, seconds.
        model_sha256: of that version's checksum list.
    """

    verdict: Verdict
    windows: tuple[SpeechWindow, ...]
    speech_s: float
    duration_s: float
    model_version: str
    model_sha256: str
    threshold: float

    def __post_init__(self) -> None:
        check_probability(self.threshold, "threshold")
        require(self.verdict.outcome.judged == bool(self.windows), "exactly a recording with speech has windows")
        require(
            0.0 <= self.speech_s <= self.duration_s,
            f"the threshold lies in 0..1, and there is no more speech than sound: {self}",
        )


@dataclass(frozen=True)
class Overall:
    """What the faces and the voice of a video say together; the parts keep their own verdicts.

    Args:
        outcome: fake where one part is, real where every part that was judged is, else inconclusive.
        reasons: which part says what; the most important first.
    """

    outcome: Outcome
    headline: str
    reasons: tuple[Notice, ...]

    def __post_init__(self) -> None:
        require(self.outcome.judged and len(self.reasons) > 0, "an overall outcome is a judged one with its reason")


@dataclass(frozen=True)
class FrameScore:
    """The image experts' calibrated probability of fake for one face at one frame, for the timeline."""

    frame: int
    time_s: float
    probability: float
    box: Box

    def __post_init__(self) -> None:
        check_probability(self.probability, "probability")


@dataclass(frozen=True)
class Span:
    """A stretch of a video, seconds from its start."""

    start_s: float
    end_s: float

    def __post_init__(self) -> None:
        require(0 <= self.start_s <= self.end_s, f"a span must be ordered: {self}")


@dataclass(frozen=True, kw_only=True)
class FaceReport:
    """The analysis of one person: verdict, experts, and the score at each frame.

    Args:
        id: of the track, from 0; the largest face first.
        experts: one entry per registered expert, missing ones named.
        frames: one entry per sighting, in time order.
        quality: `face_px`, side of the box in pixels of the medium, and the means of what the gate sees of the crops
            (`utils.faces.crops.QUALITY_NAMES`).
        spans: of a video, the times that the verdict rests on: where a part stands out, that part, else where the
            person is seen; none for a person who is seen all along.
        judged: False where the face cannot be judged (too small, cut by the border, unsharp): the verdict is then
            inconclusive, its first reason says why, and it never decides beside one that is judged.
    """

    id: int
    verdict: Verdict
    experts: tuple[ExpertScore, ...]
    frames: tuple[FrameScore, ...]
    quality: Mapping[str, float] = field(default_factory=dict)
    spans: tuple[Span, ...] = ()
    judged: bool = True


@dataclass(frozen=True, kw_only=True)
class Report:
    """The answer of `utils.detection.pipeline.analyse`: one medium, every face, one verdict.

    The verdict of a medium is that of its most suspicious face (`deciding_face`), with a reason more where somebody was
    not judged; it is not `real` where somebody was left out who could be. Of a recording it is that of its voice.
    `speech` is what the voice of a recording or video says, None where no sound was judged; `overall` fuses it with the
    faces of a video. `provenance` is what the file says of itself; no verdict depends on it. `times_ms` maps the stages
    `decode`, `detect`, `speech` (where sound was judged), `experts`, `decide` and `total` to milliseconds. `settings`
    are those that the score depends on, by their names in config.ini; with them, the same file and the same version,
    the score can be reproduced.
    """

    media: MediaInfo
    verdict: Verdict
    faces: tuple[FaceReport, ...]
    deciding_face: int | None
    model_version: str
    model_sha256: str
    threshold: float
    times_ms: Mapping[str, float]
    notices: tuple[Notice, ...] = ()
    settings: Mapping[str, float | str] = field(default_factory=dict)
    speech: SpeechReport | None = None
    overall: Overall | None = None
    provenance: Provenance | None = None
    schema_version: int = REPORT_SCHEMA_VERSION

    def __post_init__(self) -> None:
        check_probability(self.threshold, "threshold")
        ids = {face.id for face in self.faces}
        require((self.deciding_face is None) == (not self.faces), "a deciding face exactly when there are faces")
        require(self.deciding_face is None or self.deciding_face in ids, "the deciding face is one of the faces")

    @property
    def deciding(self) -> FaceReport | None:
        """The face whose verdict is that of the medium; None without a face."""
        return next((face for face in self.faces if face.id == self.deciding_face), None)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values, with the flat fields that simple clients read.

        Beside the nested values: `prediction` (the outcome), `fake_probability`, `real_probability`,
        `confidence` (the larger of the two; None without a face), `experts` and `spans` (of the deciding face) and
        `timeline` (highest probability per frame over all faces that can be judged).
        """
        plain: dict[str, Any] = _plain(self)
        p = self.verdict.probability
        peaks: dict[int, FrameScore] = {}
        judged = [f for f in self.faces if f.judged]
        for score in (s for f in judged or self.faces for s in f.frames):
            if score.frame not in peaks or score.probability > peaks[score.frame].probability:
                peaks[score.frame] = score
        plain.update(
            prediction=self.verdict.outcome.value,
            fake_probability=p,
            real_probability=None if p is None else 1.0 - p,
            confidence=None if p is None else max(p, 1.0 - p),
            experts=[] if self.deciding is None else _plain(self.deciding.experts),
            spans=[] if self.deciding is None else _plain(self.deciding.spans),
            timeline=[
                {"frame": s.frame, "time_s": s.time_s, "probability": s.probability}
                for s in sorted(peaks.values(), key=lambda s: s.frame)
            ],
        )
        return plain


def _plain(value: Any) -> Any:
    """Dataclasses, enums, tuples and arrays as JSON values; a Box becomes [x0, y0, x1, y1]."""
    if isinstance(value, Box):
        return [round(v, 2) for v in (value.x0, value.y0, value.x1, value.y1)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return value
