"""What happens to media on their way to us, as files: re-encoded, smaller, blurred, noisy, brighter, coded as a video.

Each condition turns one file into another one, losslessly stored but for what the condition itself does; the pipeline
then reads that file as it reads any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from utils.media.images import decode_image
from utils.media.limits import MediaLimits
from utils.media.video import decode_video
from utils.types import MediaKind, Pixels

CLEAN = "clean"
FIRST = (CLEAN, "JPEG 50", "scale 1/2", "H.264 CRF 32")
"""What a run that may be stopped measures first."""


@dataclass(frozen=True)
class Condition:
    """One way to degrade a medium.

    Args:
        change: of one frame, (H, W, 3) uint8 to another picture; None leaves the pixels.
        jpeg: quality of the JPEG that is written, 1..100; None for PNG.
        crf: rate factor of the H.264 that is written; None for pictures means a picture is written.
    """

    name: str
    change: Callable[[Pixels], Pixels] | None = None
    jpeg: int | None = None
    crf: int | None = None

    def applies_to(self, kind: MediaKind) -> bool:
        """JPEG is for pictures; all else for both."""
        return kind is MediaKind.IMAGE or self.jpeg is None


def _scaled(factor: float) -> Callable[[Pixels], Pixels]:
    def change(pixels: Pixels) -> Pixels:
        size = max(16, round(pixels.shape[1] * factor)), max(16, round(pixels.shape[0] * factor))
        return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)

    return change


def _blurred(sigma: float) -> Callable[[Pixels], Pixels]:
    return lambda pixels: np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma), np.uint8)


def _noisy(spread: float) -> Callable[[Pixels], Pixels]:
    def change(pixels: Pixels) -> Pixels:
        noise = np.random.default_rng(0).normal(0, spread, pixels.shape)
        return np.clip(pixels + noise, 0, 255).astype(np.uint8)

    return change


def _lit(gain: float) -> Callable[[Pixels], Pixels]:
    return lambda pixels: np.clip(pixels * gain, 0, 255).astype(np.uint8)


CONDITIONS: tuple[Condition, ...] = (
    Condition(CLEAN),
    *(Condition(f"JPEG {quality}", jpeg=quality) for quality in (95, 70, 50, 30)),
    Condition("scale 1/2", _scaled(1 / 2)),
    Condition("scale 1/4", _scaled(1 / 4)),
    Condition("blur 1 px", _blurred(1.0)),
    Condition("blur 2 px", _blurred(2.0)),
    Condition("noise 5", _noisy(5.0)),
    Condition("noise 15", _noisy(15.0)),
    Condition("brightness 0.7", _lit(0.7)),
    Condition("brightness 1.3", _lit(1.3)),
    *(Condition(f"H.264 CRF {crf}", crf=crf) for crf in (23, 32, 40)),
)
LOSSLESS_CRF = 12
"""Clips whose frames are changed are written nearly without loss."""


def degraded(path: Path, kind: MediaKind, condition: Condition, folder: Path, *, frames: int) -> Path:
    """Write the degraded medium into `folder` and give its path; of `clean` the original itself.

    As H.264 a picture becomes a clip of one frame, a key frame.

    Args:
        frames: taken evenly from a clip: as many as the product judges.

    Raises:
        MediaError: the original cannot be read.
    """
    if condition.name == CLEAN:
        return path
    limits = MediaLimits()
    if kind is MediaKind.IMAGE:
        pictures: Sequence[Pixels] = [decode_image(path, limits)[0].pixels]
    else:
        pictures = [frame.pixels for frame in decode_video(path, frames, limits)[0]]
    if condition.change is not None:
        pictures = [condition.change(pixels) for pixels in pictures]
    if kind is MediaKind.VIDEO or condition.crf is not None:
        crf = condition.crf if condition.crf is not None else LOSSLESS_CRF
        return _write_clip(folder / "degraded.mp4", pictures, crf)
    target = folder / ("degraded.jpg" if condition.jpeg else "degraded.png")
    options = [cv2.IMWRITE_JPEG_QUALITY, condition.jpeg] if condition.jpeg else []
    if not cv2.imwrite(str(target), np.ascontiguousarray(pictures[0][:, :, ::-1]), options):
        raise OSError(f"{target} could not be written")
    return target


def _write_clip(target: Path, frames: Sequence[Pixels], crf: int) -> Path:
    height, width = (side - side % 2 for side in frames[0].shape[:2])
    with av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": str(crf), "preset": "veryfast"}
        for pixels in frames:
            even = np.ascontiguousarray(pixels[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        container.mux(stream.encode())
    return target
