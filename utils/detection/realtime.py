"""A running score: one's own camera, or a file as if it were one, judged picture by picture.

`inference.py --realtime` ends here. A file is decoded by the product's confined child process like any other. A camera
is read through OpenCV in this process: its pictures come from one's own device and are no untrusted file.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.detection.cli import check_readable
from utils.errors import MediaUnreadableError
from utils.metrics import logit, sigmoid
from utils.types import Frame, Media, MediaInfo, MediaKind

if TYPE_CHECKING:
    from utils.detection.pipeline import Analyser

WINDOW = 8
"""The running score is the mean over this many pictures with a face."""
MIN_PROBABILITY = 1e-4  # one picture must not outweigh all others
CAMERA = re.compile(r"[0-9]{1,3}")
CAMERA_FILE = re.compile(r"/dev/video([0-9]{1,3})")


@dataclass(frozen=True)
class Moment:
    """The score at one moment.

    Args:
        time_s: seconds since the start.
        probability: calibrated probability of fake of the most suspicious face, 0..1; None without a face that can be
            judged.
        running: mean over the last `WINDOW` pictures with a face, on the scale of logits; None before the first.
    """

    time_s: float
    faces: int
    probability: float | None
    running: float | None
    pictures: int


def watch(source: str, analyser: Analyser) -> Iterator[Moment]:
    """The scores of a camera until it ends or the caller stops, or of a file's pictures.

    Args:
        source: number of a camera, `/dev/videoN`, or the path of a file.

    Raises:
        MediaUnreadableError: there is no such camera, or it gives no picture.
        MediaError: the file cannot be decoded.
    """
    camera = camera_number(source)
    frames = _file_frames(Path(source), analyser) if camera is None else _camera_frames(camera)
    logits: deque[float] = deque(maxlen=WINDOW)
    for frame in frames:
        faces, probability = judge(frame, analyser)
        if probability is not None:
            logits.append(logit(probability, MIN_PROBABILITY))
        running = sigmoid(sum(logits) / len(logits)) if logits else None
        yield Moment(frame.time_s, faces, probability, running, len(logits))


def camera_number(source: str) -> int | None:
    """Which camera a source means; None for a file."""
    device = CAMERA_FILE.fullmatch(source)
    if device:
        return int(device[1])
    return int(source) if CAMERA.fullmatch(source) and not Path(source).exists() else None


def judge(frame: Frame, analyser: Analyser) -> tuple[int, float | None]:
    """How many faces a picture has, and the calibrated probability of the most suspicious one that can be judged."""
    from utils.detection import pipeline

    pixels = frame.pixels
    height, width = pixels.shape[:2]
    info = MediaInfo(
        kind=MediaKind.IMAGE, format="frame", mime="application/octet-stream", width=width, height=height,
        size_bytes=pixels.nbytes, sha256=hashlib.sha256(pixels.tobytes()).hexdigest(),
    )  # fmt: skip
    media = Media(info, (Frame(0, 0.0, pixels),))
    tracks = pipeline.find_faces(media, analyser)
    people = pipeline.cut_for(media, tracks, analyser)
    report = pipeline.judge(people, analyser)
    deciding = report.deciding
    judged = deciding is not None and deciding.judged
    return len(report.faces), report.verdict.probability if judged else None


def _file_frames(path: Path, analyser: Analyser) -> Iterator[Frame]:
    from utils.detection.pipeline import decode

    check_readable(path)
    yield from decode(path, analyser).frames


def _camera_frames(number: int) -> Iterator[Frame]:
    import cv2

    camera = cv2.VideoCapture(number)
    try:
        if not camera.isOpened():
            raise MediaUnreadableError(f"There is no camera {number}, or another program uses it.")
        camera.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest picture, not one that has waited
        start = time.monotonic()
        index = 0
        while True:
            taken, picture = camera.read()
            if not taken:
                if index == 0:
                    raise MediaUnreadableError(f"Camera {number} gives no picture.")
                return
            yield Frame(index, time.monotonic() - start, np.ascontiguousarray(picture[:, :, ::-1], dtype=np.uint8))
            index += 1
    finally:
        camera.release()


def format_moment(moment: Moment) -> str:
    """One line, such as `  12.4 s  1 face   now 0.83  running 0.71 (8)`."""
    now = " -  " if moment.probability is None else f"{moment.probability:.2f}"
    running = " -  " if moment.running is None else f"{moment.running:.2f}"
    faces = f"{moment.faces} face{' ' if moment.faces == 1 else 's'}"
    return f"{moment.time_s:7.1f} s  {faces:8}  now {now}  running {running} ({moment.pictures})"
