"""The answer that crosses from the decoding child to its parent: pixels and numbers, nothing else.

Magic, length of the header, header (JSON), then the frames' pixels one after the other. The parent takes the child for
hostile: it reads no more than the limits allow and checks every value again.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from utils import errors
from utils.errors import DecoderCrashedError, MediaError, TelltaleError
from utils.media.limits import DURATION_GRACE_S, MAX_VIDEO_SIDE, NOTICE_TEXTS, Facts, MediaLimits
from utils.types import Frame, MediaKind

MAGIC = b"TTMEDIA1"
MAX_HEADER_BYTES = 64 * 1024
MAX_DETAIL = 300

_ERRORS: dict[str, type[MediaError]] = {
    cls.code: cls
    for cls in (
        errors.UnsupportedMediaError,
        errors.MediaDimensionsError,
        errors.MediaTooLongError,
        errors.MediaCorruptError,
        errors.DecoderLimitError,
        errors.DecoderCrashedError,
    )
}


@dataclass(frozen=True)
class Expected:
    """What the parent asked for, and so what an answer may hold at most."""

    kind: MediaKind
    frames: int
    limits: MediaLimits


class BrokenAnswerError(Exception):
    """The child's answer is cut short or is none; its exit status says more."""


def write_frames(out: BinaryIO, frames: Sequence[Frame], facts: Facts) -> None:
    """Send what was decoded (the child's side)."""
    shapes = [[frame.pixels.shape[0], frame.pixels.shape[1], frame.time_s] for frame in frames]
    header = {
        "width": facts.width,
        "height": facts.height,
        "duration_s": facts.duration_s,
        "fps": facts.fps,
        "codec": facts.codec,
        "notices": list(facts.notices),
        "frames": shapes,
    }
    _write_header(out, header)
    for frame in frames:
        out.write(np.ascontiguousarray(frame.pixels).data.cast("B"))
    out.flush()


def write_error(out: BinaryIO, error: TelltaleError) -> None:
    """Send the code and the sentence of an error (the child's side)."""
    _write_header(out, {"error": error.code, "detail": error.detail[:MAX_DETAIL]})
    out.flush()


def write_level(out: BinaryIO, level: Sequence[str]) -> None:
    """Send the names of the protections in force (the child's side)."""
    _write_header(out, {"level": list(level)})
    out.flush()


def _write_header(out: BinaryIO, header: dict[str, Any]) -> None:
    text = json.dumps(header).encode()
    out.write(MAGIC + struct.pack("<I", len(text)) + text)


def read_answer(untrusted_pipe: BinaryIO, expected: Expected) -> tuple[tuple[Frame, ...], Facts]:
    """Receive what was decoded (the parent's side).

    Args:
        untrusted_pipe: the child's output.
        expected: what was asked for.

    Returns:
        The frames and the facts, all within the limits.

    Raises:
        MediaError: the one that the child reported.
        DecoderCrashedError: a value breaks the limits, or there is more than was announced.
        BrokenAnswerError: there is less than was announced.
    """
    untrusted = _read_header(untrusted_pipe)
    if "error" in untrusted:
        raise _reported(untrusted)
    facts = _check_facts(untrusted, expected)
    shapes = _check_shapes(untrusted.get("frames"), facts, expected)
    frames = []
    for index, (height, width, time_s) in enumerate(shapes):
        pixels = np.empty((height, width, 3), np.uint8)
        _read_into(untrusted_pipe, pixels.data.cast("B"))
        frames.append(Frame(index, time_s, pixels))
    _require(not untrusted_pipe.read(1), "more bytes than announced")
    return tuple(frames), facts


def read_level(untrusted_pipe: BinaryIO) -> tuple[str, ...]:
    """Receive the names of the protections in force (the parent's side).

    Raises:
        DecoderCrashedError: they are no list of names.
        BrokenAnswerError: there is less than was announced.
    """
    names = _read_header(untrusted_pipe).get("level")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DecoderCrashedError("The decoder gave an answer that breaks the rules: its protections are no names.")
    return tuple(names)


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise DecoderCrashedError(f"The decoder gave an answer that breaks the rules: {what}.")


def _read_into(pipe: BinaryIO, view: memoryview) -> None:
    done = 0
    while done < len(view):
        count = pipe.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            raise BrokenAnswerError("the answer ends early")
        done += count


def _read_exactly(pipe: BinaryIO, count: int) -> bytes:
    buffer = bytearray(count)
    _read_into(pipe, memoryview(buffer))
    return bytes(buffer)


def _read_header(pipe: BinaryIO) -> dict[str, Any]:
    head = _read_exactly(pipe, len(MAGIC) + 4)
    _require(head.startswith(MAGIC), "it does not begin as an answer does")
    (length,) = struct.unpack("<I", head[len(MAGIC) :])
    _require(length <= MAX_HEADER_BYTES, f"a header of {length} bytes")
    try:
        header = json.loads(_read_exactly(pipe, length))
    except (ValueError, RecursionError) as error:
        raise DecoderCrashedError("The decoder gave an answer that breaks the rules: its header is no JSON.") from error
    _require(isinstance(header, dict), "its header is no object")
    return dict(header)


def _reported(untrusted: dict[str, Any]) -> MediaError:
    code, detail = untrusted["error"], untrusted.get("detail")
    _require(isinstance(code, str) and code in _ERRORS, "an unknown error code")
    _require(isinstance(detail, str), "an error without a sentence")
    return _ERRORS[code]("".join(c for c in str(detail)[:MAX_DETAIL] if c.isprintable()))


def _is_number(value: Any) -> bool:
    """Whether it is a number that a float can hold; JSON has whole numbers of any length."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -(2**53) < value < 2**53


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31


def _check_facts(untrusted: dict[str, Any], expected: Expected) -> Facts:
    width, height = untrusted.get("width"), untrusted.get("height")
    _require(_is_size(width) and _is_size(height), "a size that is none")
    try:
        expected.limits.check_size(int(width or 0), int(height or 0))
    except MediaError as error:
        raise DecoderCrashedError(f"The decoder gave an answer that breaks the rules: {error.detail}") from error
    notices = untrusted.get("notices")
    _require(isinstance(notices, list) and len(notices) <= len(NOTICE_TEXTS), "notices that are none")
    codes = tuple(str(code) for code in notices or ())
    _require(set(codes) <= set(NOTICE_TEXTS), "an unknown notice")
    duration_s, fps, codec = (untrusted.get(key) for key in ("duration_s", "fps", "codec"))
    if expected.kind is MediaKind.IMAGE:
        _require(duration_s is None and fps is None and codec is None, "a picture with a duration")
        return Facts(int(width or 0), int(height or 0), notices=codes)
    longest = expected.limits.max_duration_s + DURATION_GRACE_S
    _require(_is_number(duration_s) and 0 <= float(duration_s or 0) <= longest, "a duration outside the limits")
    _require(fps is None or (_is_number(fps) and fps > 0), "a frame rate that is none")
    _require(isinstance(codec, str) and re.fullmatch(r"[a-z0-9_]{1,32}", codec) is not None, "a codec that is none")
    rate = None if fps is None else float(fps)
    return Facts(int(width or 0), int(height or 0), float(duration_s or 0), rate, str(codec), codes)


def _check_shapes(untrusted: Any, facts: Facts, expected: Expected) -> list[tuple[int, int, float]]:
    _require(isinstance(untrusted, list), "no list of frames")
    _require(1 <= len(untrusted) <= expected.frames, f"{len(untrusted)} frames")
    shapes: list[tuple[int, int, float]] = []
    for entry in untrusted:
        _require(isinstance(entry, list) and len(entry) == 3, "a frame without size and time")
        height, width, time_s = entry
        _require(_is_size(height) and _is_size(width), "a frame without a size")
        if expected.kind is MediaKind.IMAGE:
            _require((width, height) == (facts.width, facts.height) and time_s == 0, "a frame of another size")
        else:
            _require(max(width, height) <= MAX_VIDEO_SIDE, f"a frame of {width} x {height} pixels")
        earliest = shapes[-1][2] if shapes else -1.0
        latest = expected.limits.max_duration_s + DURATION_GRACE_S
        _require(_is_number(time_s) and earliest < time_s <= latest and time_s >= 0, "times out of order")
        shapes.append((height, width, float(time_s)))
    return shapes
