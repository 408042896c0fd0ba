"""Media, the faces in them and what a file says of itself, as values that check themselves; `types.py`, which everyone
imports, hands most of them on. What a file says are facts beside the networks' verdict, read by `utils.evidence`;
nothing of it ever changes an outcome or a probability.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""Image pixels, (H, W, 3) uint8, RGB, 0..255."""

Floats = npt.NDArray[np.float32]

SAMPLE_RATE = 16_000
"""Of all decoded sound, per second."""


class MediaKind(enum.StrEnum):
    """What an upload is: one picture, a sequence of them, or sound alone."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"


def require(condition: bool, message: str) -> None:
    """Raise ValueError where a value breaks its rules."""
    if not condition:
        raise ValueError(message)


def check_probability(value: float | None, name: str) -> None:
    """Raise ValueError for a number outside 0..1."""
    require(value is None or (math.isfinite(value) and 0.0 <= value <= 1.0), f"{name} must lie in 0..1: {value}")


@dataclass(frozen=True, kw_only=True)
class SoundInfo:
    """Facts about the sound of a recording or video, as it is stored.

    Args:
        codec: FFmpeg's name.
        rate_hz: samples per second and channel.
        duration_s: seconds that were decoded; 0 where it was not asked for or cannot be decoded.
    """

    codec: str
    rate_hz: int
    channels: int
    duration_s: float = 0.0

    def __post_init__(self) -> None:
        require(self.rate_hz > 0 and self.channels > 0, "rate and channels must be positive")
        require(self.duration_s >= 0 and math.isfinite(self.duration_s), "a duration must be >= 0")


@dataclass(frozen=True, kw_only=True)
class MediaInfo:
    """Facts about one medium, measured and not taken from its name.

    Args:
        format: our name of the container or picture format, such as `jpeg` or `matroska`.
        mime: the media type that belongs to the format.
        width: pixels, upright (EXIF orientation and rotation matrices applied); 0 for sound alone.
        height: pixels, upright; 0 for sound alone.
        sha256: of the file, 64 hexadecimal digits.
        duration_s: seconds; None for pictures.
        fps: mean frames per second; None for pictures and sound alone.
        codec: of the video, or of sound alone; None for pictures.
        sound: what sound there is; None without.
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
    sound: SoundInfo | None = None

    def __post_init__(self) -> None:
        has_size = self.width > 0 and self.height > 0
        require(has_size or self.kind is MediaKind.AUDIO, f"size must be positive: {self.width} x {self.height}")
        require(self.size_bytes >= 0, "size_bytes must not be negative")
        require(len(self.sha256) == 64, "sha256 must have 64 hexadecimal digits")
        timed = self.kind is not MediaKind.IMAGE
        require(timed == (self.duration_s is not None), "exactly videos and sound have a duration")
        require(self.kind is not MediaKind.AUDIO or self.sound is not None, "sound alone has sound")


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
        require(self.index >= 0 and self.time_s >= 0 and math.isfinite(self.time_s), "index and time must be >= 0")
        require(self.pixels.ndim == 3 and self.pixels.shape[2] == 3, f"pixels must be (H, W, 3): {self.pixels.shape}")
        require(self.pixels.dtype == np.uint8, f"pixels must be uint8: {self.pixels.dtype}")


@dataclass(frozen=True)
class Notice:
    """Something the user should know, with a stable code for programs (`truncated`, `small_face`, ...)."""

    code: str
    text: str


@dataclass(frozen=True)
class Media:
    """A decoded medium: facts, frames in time order (`turned` to the left by so many quarters), sound, and notices.

    `samples` are (n,) float32, -1..1, mono, `SAMPLE_RATE` per second; None where there is no sound or nobody asked.
    """

    info: MediaInfo
    frames: tuple[Frame, ...]
    notices: tuple[Notice, ...] = ()
    turned: int = 0
    samples: Floats | None = None

    def __post_init__(self) -> None:
        require((len(self.frames) == 0) == (self.info.kind is MediaKind.AUDIO), "all but sound has a frame")
        require(self.info.kind is not MediaKind.IMAGE or len(self.frames) == 1, "a picture has exactly one frame")


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of the upright frame; x to the right, y down; may reach over the border."""

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        require(all(math.isfinite(v) for v in (self.x0, self.y0, self.x1, self.y1)), "box must be finite")
        require(self.x1 > self.x0 and self.y1 > self.y0, f"box must have an area: {self}")

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
        check_probability(self.score, "score")
        require(self.landmarks.shape == (5, 2), f"landmarks must be (5, 2): {self.landmarks.shape}")


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
        require(len(self.sightings) > 0, "a track has at least one sighting")
        order = [s.frame for s in self.sightings]
        require(order == sorted(set(order)), "a track sees each frame at most once, in time order")


class Proof(enum.StrEnum):
    """What a mark proves: a signature can be checked, anybody can write a statement, other things are only usual."""

    SIGNED = "signed"
    STATED = "stated"
    USUAL = "usual"


class Says(enum.StrEnum):
    """What a mark is about: a file made or changed by a generative model, taken by a camera, or written by a tool."""

    GENERATED = "generated"
    EDITED = "edited"
    CAPTURED = "captured"
    TOOL = "tool"


class CredentialState(enum.StrEnum):
    """Of Content Credentials: none, whole and by a trusted signer, whole by an unknown one, changed since, or those
    that could not be read."""

    ABSENT = "absent"
    VALID = "valid"
    UNTRUSTED = "untrusted"
    BROKEN = "broken"
    UNREAD = "unread"


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One thing that the file carries: `code` for programs, `name` of generator, tool or camera, `where` it stands, the
    `value` there, shortened, and a sentence."""

    code: str
    name: str
    says: Says
    proof: Proof
    where: str
    value: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """The Content Credentials (C2PA) of a file: names in the signing certificate, time of its stamp, the program that
    wrote the claim, IPTC's digital source types of the actions, titles of the files that went in, and, of broken ones,
    C2PA's codes."""

    state: CredentialState
    text: str
    signer: str | None = None
    issuer: str | None = None
    signed_at: str | None = None
    made_with: str | None = None
    source_types: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    ingredients: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require((self.state is CredentialState.BROKEN) or not self.problems, "only broken credentials have problems")


@dataclass(frozen=True, kw_only=True)
class Compression:
    """How a JPEG was saved: the quality by its tables on libjpeg's scale, 1..100 (`standard` tables are libjpeg's, else
    it is the nearest), that of the time before where its traces are clear, and sentences."""

    quality: int
    quality_before: int | None
    tables: str
    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        require(1 <= self.quality <= 100, f"quality lies in 1..100: {self.quality}")
        require(self.tables in ("standard", "own"), f"tables are standard or own: {self.tables}")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Everything that a file says of itself: a `statement` where it states, signed or not, that a generative model made
    or changed it; marks, the strongest first; notices about what could not be read."""

    statement: str | None
    credentials: Credentials
    marks: tuple[Mark, ...] = ()
    compression: Compression | None = None
    notices: tuple[Notice, ...] = ()
