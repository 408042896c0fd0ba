"""The values that cross the borders of our rooms: media, faces, scores, verdicts and the report.

Everyone may import this file; it imports nothing of ours. Every value is frozen and checks itself,
so that a function that receives one need not check it again.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""Image pixels, (H, W, 3) uint8, RGB, 0..255."""

Floats = npt.NDArray[np.float32]

REPORT_SCHEMA_VERSION = 1
DOCUMENT, DOCUMENT_VERSION = "telltale-report", 1  # a report that stands by itself says so


class MediaKind(enum.StrEnum):
    """What an upload is: one picture, or a sequence of them."""

    IMAGE = "image"
    VIDEO = "video"


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


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _check_probability(value: float | None, name: str) -> None:
    _require(value is None or (math.isfinite(value) and 0.0 <= value <= 1.0), f"{name} must lie in 0..1: {value}")


@dataclass(frozen=True, kw_only=True)
class MediaInfo:
    """Facts about one medium, measured and not taken from its name.

    Args:
        kind: image or video.
        format: our name of the container or picture format, such as `jpeg` or `matroska`.
        mime: the media type that belongs to the format.
        width: pixels, upright (EXIF orientation and rotation matrices applied).
        height: pixels, upright.
        size_bytes: of the file.
        sha256: of the file, 64 hexadecimal digits.
        duration_s: seconds; None for pictures.
        fps: mean frames per second; None for pictures.
        codec: video codec; None for pictures.
    """

    kind: MediaKind
    format: str
    mime: str
    width: int
    height: int
    size_bytes: int
    sha256: str
    duration_s: float | None = None
    fps: float | None = None
    codec: str | None = None

    def __post_init__(self) -> None:
        _require(self.width > 0 and self.height > 0, f"size must be positive: {self.width} x {self.height}")
        _require(self.size_bytes >= 0, "size_bytes must not be negative")
        _require(len(self.sha256) == 64, "sha256 must have 64 hexadecimal digits")
        _require((self.kind is MediaKind.VIDEO) == (self.duration_s is not None), "exactly videos have a duration")


@dataclass(frozen=True)
class Frame:
    """One decoded picture: a photo (index 0, time 0) or a frame of a video.

    Args:
        index: position among the frames that were taken from the medium, from 0.
        time_s: presentation time, seconds from the start.
        pixels: (H, W, 3) uint8 RGB, upright.
    """

    index: int
    time_s: float
    pixels: Pixels

    def __post_init__(self) -> None:
        _require(self.index >= 0 and self.time_s >= 0 and math.isfinite(self.time_s), "index and time must be >= 0")
        _require(self.pixels.ndim == 3 and self.pixels.shape[2] == 3, f"pixels must be (H, W, 3): {self.pixels.shape}")
        _require(self.pixels.dtype == np.uint8, f"pixels must be uint8: {self.pixels.dtype}")


@dataclass(frozen=True)
class Notice:
    """Something the user should know, with a stable code for programs (`truncated`, `small_face`, ...)."""

    code: str
    text: str


@dataclass(frozen=True)
class Media:
    """A decoded medium: facts, frames in time order (`turned` to the left by so many quarters), and notices."""

    info: MediaInfo
    frames: tuple[Frame, ...]
    notices: tuple[Notice, ...] = ()
    turned: int = 0

    def __post_init__(self) -> None:
        _require(len(self.frames) > 0, "a medium has at least one frame")
        _require(self.info.kind is MediaKind.VIDEO or len(self.frames) == 1, "a picture has exactly one frame")


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of the upright frame; x to the right, y down; may reach over the border."""

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        _require(all(math.isfinite(v) for v in (self.x0, self.y0, self.x1, self.y1)), "box must be finite")
        _require(self.x1 > self.x0 and self.y1 > self.y0, f"box must have an area: {self}")

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        return self.y1 - self.y0

    @property
    def centre(self) -> tuple[float, float]:
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    def scaled(self, factor: float) -> Box:
        """The box in a frame that is larger by a factor."""
        return self if factor == 1 else Box(*(factor * v for v in (self.x0, self.y0, self.x1, self.y1)))


@dataclass(frozen=True)
class Face:
    """One detected face.

    Args:
        box: where it is, pixels of the frame.
        score: the detector's confidence, 0..1.
        landmarks: (5, 2) float32 pixels: left eye, right eye, nose, left and right corner of the mouth
            (left as the viewer sees it).
    """

    box: Box
    score: float
    landmarks: Floats

    def __post_init__(self) -> None:
        _check_probability(self.score, "score")
        _require(self.landmarks.shape == (5, 2), f"landmarks must be (5, 2): {self.landmarks.shape}")


@dataclass(frozen=True)
class Sighting:
    """A face at one of the frames of a track; `frame` is the index of `Frame.index`."""

    frame: int
    face: Face


@dataclass(frozen=True)
class FaceTrack:
    """One person through the frames of a medium (a photo gives tracks of one sighting), in time order."""

    id: int
    sightings: tuple[Sighting, ...]

    def __post_init__(self) -> None:
        _require(len(self.sightings) > 0, "a track has at least one sighting")
        order = [s.frame for s in self.sightings]
        _require(order == sorted(set(order)), "a track sees each frame at most once, in time order")


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
        _check_probability(self.probability, "probability")
        _check_probability(self.weight, "weight")
        _require(self.available == (self.probability is not None), "exactly the available experts have a probability")
        _require(self.available or self.weight == 0.0, "a missing expert has weight 0")


@dataclass(frozen=True)
class Verdict:
    """The decision about a face or a medium, with everything needed to explain it.

    Args:
        outcome: fake, real, inconclusive, no_face or no_speech.
        headline: one sentence for people.
        probability: calibrated probability of fake, 0..1; None where nothing was judged.
        interval: 95 % interval of the probability (low, high); None where nothing was judged.
        reasons: why this outcome, the most important first.
    """

    outcome: Outcome
    headline: str
    probability: float | None
    interval: tuple[float, float] | None
    reasons: tuple[Notice, ...] = ()

    def __post_init__(self) -> None:
        _check_probability(self.probability, "probability")
        _require(self.outcome.judged != (self.probability is None), "exactly what was judged has a probability")
        _require((self.probability is None) == (self.interval is None), "probability and interval come together")
        if self.interval is not None:
            low, high = self.interval
            _require(0.0 <= low <= high <= 1.0, f"interval must be ordered within 0..1: {self.interval}")


@dataclass(frozen=True)
class FrameScore:
    """The image experts' calibrated probability of fake for one face at one frame, for the timeline."""

    frame: int
    time_s: float
    probability: float
    box: Box

    def __post_init__(self) -> None:
        _check_probability(self.probability, "probability")


@dataclass(frozen=True)
class Span:
    """A stretch of a video, seconds from its start."""

    start_s: float
    end_s: float

    def __post_init__(self) -> None:
        _require(0 <= self.start_s <= self.end_s, f"a span must be ordered: {self}")


@dataclass(frozen=True, kw_only=True)
class FaceReport:
    """The analysis of one person: verdict, experts, and the score at each frame.

    Args:
        id: of the track, from 0; the largest face first.
        verdict: about this person.
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
    not judged; it is not `real` where somebody was left out who could be. `times_ms` maps the stages
    `decode`, `detect`, `experts`, `decide` and `total` to milliseconds. `settings` are those that the score depends on,
    by their names in config.ini; with them, the same file and the same version, the score can be reproduced.
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
    schema_version: int = REPORT_SCHEMA_VERSION

    def __post_init__(self) -> None:
        _check_probability(self.threshold, "threshold")
        ids = {face.id for face in self.faces}
        _require((self.deciding_face is None) == (not self.faces), "a deciding face exactly when there are faces")
        _require(self.deciding_face is None or self.deciding_face in ids, "the deciding face is one of the faces")

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
