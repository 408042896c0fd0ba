"""Makers of media for the tests of the media room: everything is drawn and encoded here."""

from __future__ import annotations

import fractions
import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.hostile.attacks import seeds
from tests.utils.media.films import calm


def grey_of(index: int) -> int:
    """The grey level that stands for the frame with an index: neighbours and neighbours' neighbours differ."""
    return 30 + (index * 8) % 200


def encode(
    container: str,
    codec: str,
    *,
    count: int = 40,
    rate: int = 10,
    size: tuple[int, int] = (96, 64),
    times_ms: Sequence[int] | None = None,
    rotation: int | None = None,
    sound: bool = False,
    picture: np.ndarray | Callable[[int], np.ndarray] | None = None,
    aspect: fractions.Fraction | None = None,
    codec_options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    target: Any = None,
) -> bytes:
    """Encode a clip whose frame i is grey with level `grey_of(i)`, or shows `picture` throughout, or `picture(i)`."""
    out = io.BytesIO() if target is None else target
    width, height = size
    with av.open(out, "w", format=container, container_options=container_options or {}) as sink:
        stream = sink.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = codec_options or {}
        if times_ms is not None:
            stream.codec_context.time_base = fractions.Fraction(1, 1000)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        audio = sink.add_stream("aac" if container != "webm" else "libopus", rate=48000) if sound else None
        for index in range(count if times_ms is None else len(times_ms)):
            shown = picture(index) if callable(picture) else picture
            grey = np.full((height, width, 3), grey_of(index), np.uint8)
            frame = av.VideoFrame.from_ndarray(grey if shown is None else shown)
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[index], fractions.Fraction(1, 1000)
            sink.mux(stream.encode(frame))
        sink.mux(stream.encode(None))
        if audio is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 48000
            sink.mux(audio.encode(silence))
            sink.mux(audio.encode(None))
    calm()
    return out.getvalue() if target is None else b""


CLIPS = {name: parts for name, parts in seeds.CLIPS.items() if name not in ("mpeg", "mpegvideo")}
"""One muxer and one encoder for each container that takes any frame rate."""


@pytest.fixture(scope="session")
def encode_clip() -> Callable[..., bytes]:
    """`encode`, for tests that need a clip of their own."""
    return encode


@pytest.fixture(scope="session")
def clips() -> dict[str, bytes]:
    """Four seconds of 10 frames per second in each container."""
    return {name: encode(muxer, codec) for name, (muxer, codec) in CLIPS.items()}


@pytest.fixture(scope="session")
def grey() -> Callable[[int], int]:
    """`grey_of`."""
    return grey_of


# Which processes are there, for tests that must leave none.


def children_of(pid: int | str = "self") -> list[int]:
    return [int(n) for file in Path(f"/proc/{pid}/task").glob("*/children") for n in file.read_text().split()]


def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
