"""What a medium may be at most, and what a decoder tells about one: the two values that frame every decoder call.

`sandbox.py` makes a `MediaLimits` of the settings and hands it to the child; `images.py` and `video.py` keep to it and
answer with `Facts`; `sandbox.py` holds the facts against the same limits once more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import MappingProxyType

from utils.config import MediaSettings
from utils.errors import MediaDimensionsError, MediaTooLongError
from utils.types import Floats, Notice, SoundInfo

MAX_VIDEO_SIDE = 1920
"""Frames of a video whose longer side exceeds this are scaled down to it: 16 frames of 8K would fill the memory, and
the networks look at faces of 224 pixels."""

FULL_SIZE_FRAMES = 32
"""More frames than this are scaled down further, so that all together take no more memory than these, 200 MB."""

SPAN_FPS = 25
"""Frames that are taken of each second of a part of a clip."""

DURATION_GRACE_S = 0.5
"""A clip cut to the limit by an editor is often a few frames longer."""

NOTICE_TEXTS = MappingProxyType(
    {
        "sound_damaged": "The sound of the video is damaged; what could be decoded of it was analysed.",
        "truncated": "The file is damaged or ends early; what could be decoded was analysed.",
        "animated": "The picture is animated; only its first frame was analysed.",
        "pages": "The file holds several pictures; only the first, or the one that is shown, was analysed.",
        "clip_behind": "The file also holds a short clip (a motion photo); only the picture was analysed.",
        "hdr": "HDR was converted to standard colours (SDR) for the analysis. Compressed HDR raises scores, so a higher"
        " score is needed before it is called fake.",
        "reduced": "The picture is very large; it was analysed at half its width and height.",
        "exif_unreadable": "The orientation tag could not be read; the picture was analysed as it is stored.",
    }
)
"""The notices a decoder may give. Only their codes cross from the child to the parent."""


@dataclass(frozen=True)
class MediaLimits:
    """Limits that a decoder keeps to.

    Args:
        max_megapixels: largest picture or frame, 10^6 pixels.
        min_side_px: shortest allowed side, pixels.
        max_duration_s: longest video or recording, seconds.
    """

    max_megapixels: float = 50.0
    min_side_px: int = 32
    max_duration_s: float = 600.0

    @classmethod
    def of(cls, media: MediaSettings) -> MediaLimits:
        """The limits that the settings ask for."""
        return cls(media.max_megapixels, media.min_side_px, media.max_duration_s)

    @property
    def max_pixels(self) -> int:
        return int(self.max_megapixels * 1_000_000)

    def is_reduced(self, width: int, height: int) -> bool:
        """Whether a picture of this size is decoded at half its width and height, where its format allows it."""
        return width * height > self.max_pixels

    def check_size(self, width: int, height: int, *, reducible: bool = False) -> None:
        """Refuse a picture or frame that is too large or too small.

        Args:
            reducible: it is decoded at half its width and height where it is too large.

        Raises:
            MediaDimensionsError: more than `max_megapixels`, or a side shorter than `min_side_px`.
        """
        if width * height > (4 * self.max_pixels if reducible else self.max_pixels):
            raise MediaDimensionsError(
                f"{width} x {height} pixels are more than the {self.max_megapixels:g} megapixels allowed"
                f" ({4 * self.max_megapixels:g} of a JPEG)."
            )
        if min(width, height) < self.min_side_px:
            raise MediaDimensionsError(
                f"{width} x {height} pixels: the shorter side must have at least {self.min_side_px}."
            )

    def check_duration(self, seconds: float) -> None:
        """Refuse a video or recording that is too long.

        Raises:
            MediaTooLongError: longer than `max_duration_s`.
        """
        if seconds > self.max_duration_s + DURATION_GRACE_S:
            raise MediaTooLongError(f"It lasts {seconds:.1f} seconds, more than the {self.max_duration_s:g} allowed.")


def span_frames(first_s: float, last_s: float) -> int:
    """How many frames are taken at most of a part of a clip."""
    return max(1, math.ceil((last_s - first_s) * SPAN_FPS))


@dataclass(frozen=True)
class Facts:
    """What a decoder measured.

    Args:
        width: pixels of the original, upright; 0 for sound alone.
        height: pixels of the original, upright; 0 for sound alone.
        duration_s: seconds from the first frame to the end of the last one, or of sound alone; None for pictures.
        fps: mean frames per second; None for pictures, sound alone and videos of one frame.
        codec: FFmpeg's name of the codec of the video or of sound alone; None for pictures.
        notices: codes out of `NOTICE_TEXTS`.
        others: video tracks and cover pictures that were passed over.
        samples: of the sound, as of `utils.types.Media`, where they have come across the border.
    """

    width: int
    height: int
    duration_s: float | None = None
    fps: float | None = None
    codec: str | None = None
    notices: tuple[str, ...] = ()
    others: int = 0
    sound: SoundInfo | None = None
    samples: Floats | None = field(default=None, compare=False)

    def as_notices(self) -> tuple[Notice, ...]:
        """The notices with their sentences."""
        told = tuple(Notice(code, NOTICE_TEXTS[code]) for code in self.notices)
        if not self.others:
            return told
        more = "one more video track or cover picture" if self.others == 1 else f"{self.others} more video tracks"
        text = (
            f"The file holds {more}; only the track that players show was analysed. Save others as files of their own."
        )
        return (*told, Notice("tracks_left_out", text))
