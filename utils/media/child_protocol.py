"""The answer that crosses from the decoding child to its parent: pixels, samples and numbers, nothing else.

Magic, length of a header, header (JSON), and what it announces: a frame, as soon as it is decoded, or a piece of the
sound. The last header holds the facts. A clean copy comes in pieces with their places. The parent takes the child for
hostile: it reads no more than the limits allow and checks every value again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import mmap
import os
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np

from utils import errors
from utils.errors import DecoderCrashedError, MediaError, TelltaleError
from utils.media.limits import DURATION_GRACE_S, MAX_VIDEO_SIDE, NOTICE_TEXTS, Facts, MediaLimits
from utils.types import SAMPLE_RATE, Floats, Frame, MediaKind, Pixels, SoundInfo

MAGIC = b"TTMEDIA1"
MAX_HEADER_BYTES = 64 * 1024
MAX_DETAIL = 300
PIECE_BYTES = 1 << 20
MAX_OTHERS = 1000
PIECE_SAMPLES = PIECE_BYTES // 4
CODEC_NAME = re.compile(r"[a-z0-9_]{1,32}")
Shape = tuple[int, int, float]
"""Height and width of a frame in pixels, and its time in seconds."""

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
    """What the parent asked for, and so what an answer may hold at most; of what `moves`, a picture or a clip."""

    kind: MediaKind
    frames: int
    limits: MediaLimits
    moves: bool = False


class BrokenAnswerError(Exception):
    """The child's answer is cut short or is none; its exit status says more."""


def write_frame(out: BinaryIO, frame: Frame) -> None:
    """Send a frame as soon as it is decoded (the child's side); index 0 takes back those that were sent before."""
    write_header(out, {"frame": [frame.index, *frame.pixels.shape[:2], frame.time_s]})
    out.write(np.ascontiguousarray(frame.pixels).data.cast("B"))
    out.flush()


def write_samples(out: BinaryIO, samples: Floats) -> None:
    """Send the next samples of the sound (the child's side)."""
    for start in range(0, len(samples), PIECE_SAMPLES):
        piece = np.ascontiguousarray(samples[start : start + PIECE_SAMPLES], np.float32)
        write_header(out, {"samples": len(piece)})
        out.write(piece.data.cast("B"))


def write_facts(out: BinaryIO, facts: Facts) -> None:
    """Send what is known of the medium, behind its frames and samples (the child's side)."""
    header = {name: value for name, value in vars(facts).items() if name not in ("sound", "samples")}
    write_header(out, header | {"sound": None if facts.sound is None else dataclasses.asdict(facts.sound)})
    out.flush()


class CopyWriter:
    """A file of the child's that lies with its parent: each piece is sent with its place (the child's side)."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._at = self._end = 0

    def write(self, data: bytes) -> int:
        """Send bytes for the present place."""
        for start in range(0, len(data), PIECE_BYTES):
            piece = data[start : start + PIECE_BYTES]
            write_header(self._out, {"at": self._at, "size": len(piece)})
            self._out.write(piece)
            self._at += len(piece)
            self._end = max(self._end, self._at)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; see `io.IOBase.seek`."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        return self._at

    def tell(self) -> int:
        """The present place."""
        return self._at

    def finish(self) -> None:
        """Tell that the copy is whole."""
        write_header(self._out, {"copied": self._end})
        self._out.flush()


def write_error(out: BinaryIO, error: TelltaleError) -> None:
    """Send the code and the sentence of an error (the child's side)."""
    write_header(out, {"error": error.code, "detail": error.detail[:MAX_DETAIL]})
    out.flush()


def write_level(out: BinaryIO, level: Sequence[str]) -> None:
    """Send the names of the protections in force (the child's side)."""
    write_header(out, {"level": list(level)})
    out.flush()


def write_header(out: BinaryIO, header: dict[str, Any]) -> None:
    """Send a header (the child's side)."""
    text = json.dumps(header, ensure_ascii=False).encode(errors="replace")  # 4 bytes a character, not 12
    out.write(MAGIC + struct.pack("<I", len(text)) + text)


def read_answer(
    untrusted_pipe: BinaryIO, expected: Expected, on_frame: Callable[[Frame], None] | None = None
) -> tuple[tuple[Frame, ...], Facts]:
    """Receive what was decoded (the parent's side).

    Args:
        on_frame: given each frame as soon as it has arrived; index 0 again takes back those before.

    Returns:
        The frames and the facts, all within the limits.

    Raises:
        MediaError: the one that the child reported.
        DecoderCrashedError: a value breaks the limits, or there is more than was announced.
        BrokenAnswerError: there is less than was announced.
    """
    frames: list[Frame] = []
    begun_anew = False
    sound: list[Floats] = []
    room = int((expected.limits.max_duration_s + DURATION_GRACE_S) * SAMPLE_RATE)
    while "frame" in (untrusted := read_header(untrusted_pipe)) or "samples" in untrusted:
        if "samples" in untrusted:
            sound.append(_read_samples(untrusted_pipe, untrusted["samples"], room, expected))
            room -= len(sound[-1])
            continue
        again, shape = _check_frame(untrusted["frame"], frames, expected)
        _require(not (again and begun_anew), "a third beginning")
        if again:
            frames, begun_anew = [], True
        frames.append(_read_frame(untrusted_pipe, len(frames), shape))
        if on_frame is not None:
            on_frame(frames[-1])
    if "error" in untrusted:
        raise reported(untrusted)
    facts = _check_facts(untrusted, frames, expected)
    _require(not untrusted_pipe.read(1), "more bytes than announced")
    if sound:
        _require(facts.sound is not None, "samples without a sound")
        facts = replace(facts, samples=np.concatenate(sound))
    _require(bool(frames) or facts.samples is not None, "neither frames nor samples")
    return tuple(frames), facts


def _read_samples(pipe: BinaryIO, untrusted_count: Any, room: int, expected: Expected) -> Floats:
    _require(expected.kind is not MediaKind.IMAGE, "a picture with sound")
    _require(_is_size(untrusted_count) and untrusted_count <= PIECE_SAMPLES, "a piece of sound without a size")
    _require(untrusted_count <= room, "more sound than may be")
    piece = np.frombuffer(_read_exactly(pipe, untrusted_count * 4), np.float32)
    _require(bool((np.abs(piece) <= 1).all()), "samples out of range")  # NaN fails this comparison too
    return piece


def _read_frame(pipe: BinaryIO, index: int, shape: Shape) -> Frame:
    height, width, time_s = shape
    pixels = _room(height * width * 3).reshape(height, width, 3)
    _read_into(pipe, pixels.data.cast("B"))
    return Frame(index, time_s, pixels)


def _room(size: int) -> Pixels:
    """So many bytes, in large pages where the system has them: faulting in small ones takes as long as reading."""
    room = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a system without them
            room.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(room, np.uint8)


def read_copy(untrusted_pipe: BinaryIO, target: BinaryIO, most: int) -> None:
    """Receive a copy of the medium (the parent's side).

    Args:
        target: where it goes; seekable. After an error, what is in it is of no use.

    Raises:
        MediaError: the one that the child reported.
        DecoderCrashedError: a piece breaks the limits, or there is more than was announced.
        BrokenAnswerError: there is less than was announced.
    """
    end = 0
    while "at" in (untrusted := read_header(untrusted_pipe)):
        at, size = untrusted["at"], untrusted.get("size", 0)
        _require(type(at) is int and type(size) is int, "a piece without place and size")
        _require(0 < size <= PIECE_BYTES and 0 <= at <= most - size, "a piece outside the copy")
        target.seek(at)
        target.write(_read_exactly(untrusted_pipe, size))
        end = max(end, at + size)
    if "error" in untrusted:
        raise reported(untrusted)
    _require(untrusted.get("copied") == end > 0, "a copy of another length")
    _require(not untrusted_pipe.read(1), "more bytes than announced")


def read_level(untrusted_pipe: BinaryIO) -> tuple[str, ...]:
    """Receive the names of the protections in force (the parent's side).

    Raises:
        DecoderCrashedError: they are no list of names.
        BrokenAnswerError: there is less than was announced.
    """
    names = read_header(untrusted_pipe).get("level")
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


def read_header(pipe: BinaryIO) -> dict[str, Any]:
    """Receive a header (the parent's side); raises as `read_copy` does."""
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


def reported(untrusted: dict[str, Any]) -> MediaError:
    """The error that a header tells of."""
    code, detail = untrusted["error"], untrusted.get("detail")
    _require(isinstance(code, str) and code in _ERRORS, "an unknown error code")
    _require(isinstance(detail, str), "an error without a sentence")
    return _ERRORS[code]("".join(c for c in str(detail)[:MAX_DETAIL] if c.isprintable()))


def _is_number(value: Any) -> bool:
    """Whether it is a number that a float can hold; JSON has whole numbers of any length."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -(2**53) < value < 2**53


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31


def _check_facts(untrusted: dict[str, Any], frames: Sequence[Frame], expected: Expected) -> Facts:
    width, height, sound = untrusted.get("width"), untrusted.get("height"), _check_sound(untrusted, expected)
    duration_s, fps, codec = (untrusted.get(key) for key in ("duration_s", "fps", "codec"))
    is_picture = expected.kind is MediaKind.IMAGE and not (expected.moves and duration_s is not None)
    if not (sound is not None and width == 0 and height == 0 and not frames):
        _require(_is_size(width) and _is_size(height) and bool(frames), "a size that is none")
        try:
            expected.limits.check_size(int(width or 0), int(height or 0), reducible=is_picture)
        except MediaError as error:
            raise DecoderCrashedError(f"The decoder gave an answer that breaks the rules: {error.detail}") from error
    notices = untrusted.get("notices")
    _require(isinstance(notices, list) and len(notices) <= len(NOTICE_TEXTS), "notices that are none")
    codes = tuple(str(code) for code in notices or ())
    _require(set(codes) <= set(NOTICE_TEXTS), "an unknown notice")
    if is_picture:
        _require(duration_s is None and fps is None and codec is None, "a picture with a duration")
        facts = Facts(int(width or 0), int(height or 0), notices=codes)
        part = 2 if expected.limits.is_reduced(facts.width, facts.height) else 1
        full = (-(-facts.height // part), -(-facts.width // part))
        _require([(f.pixels.shape[:2], f.time_s) for f in frames] == [(full, 0.0)], "a frame of another size")
        return facts
    _require(all(max(frame.pixels.shape) <= MAX_VIDEO_SIDE for frame in frames), "a frame that is too large")
    longest = expected.limits.max_duration_s + DURATION_GRACE_S
    _require(_is_number(duration_s) and 0 <= float(duration_s or 0) <= longest, "a duration outside the limits")
    _require(fps is None or (_is_number(fps) and fps > 0), "a frame rate that is none")
    _require(isinstance(codec, str) and CODEC_NAME.fullmatch(codec) is not None, "a codec that is none")
    rate, others = None if fps is None else float(fps), untrusted.get("others", 0)
    _require(
        (others == 0 and others is not False) or (_is_size(others) and others <= MAX_OTHERS), "tracks that are none"
    )
    return Facts(int(width or 0), int(height or 0), float(duration_s or 0), rate, str(codec), codes, int(others), sound)


def _check_sound(untrusted: dict[str, Any], expected: Expected) -> SoundInfo | None:
    sound = untrusted.get("sound")
    if sound is None:
        return None
    _require(expected.kind is not MediaKind.IMAGE and isinstance(sound, dict), "a sound that is none")
    codec, seconds = sound.get("codec"), sound.get("duration_s")
    _require(isinstance(codec, str) and CODEC_NAME.fullmatch(codec) is not None, "a codec that is none")
    _require(_is_size(sound.get("rate_hz")) and _is_size(sound.get("channels")), "a sound without rate and channels")
    longest = expected.limits.max_duration_s + DURATION_GRACE_S
    _require(_is_number(seconds) and 0 <= seconds <= longest, "a sound outside the limits")
    return SoundInfo(codec=codec, rate_hz=sound["rate_hz"], channels=sound["channels"], duration_s=float(seconds))


def _check_frame(untrusted: Any, frames: Sequence[Frame], expected: Expected) -> tuple[bool, Shape]:
    """Whether a frame begins anew, and its shape."""
    _require(expected.kind is not MediaKind.AUDIO, "sound with a picture")
    _require(isinstance(untrusted, list) and len(untrusted) == 4, "a frame without index, size and time")
    index, height, width, time_s = untrusted
    again = bool(frames) and index == 0 and not isinstance(index, bool)
    _require(again or (_is_number(index) and index == len(frames)), "frames out of order")
    _require(index < expected.frames, "more frames than asked for")
    _require(_is_size(height) and _is_size(width), "a frame without a size")
    if expected.kind is MediaKind.VIDEO:
        _require(max(width, height) <= MAX_VIDEO_SIDE, f"a frame of {width} x {height} pixels")
    _require(height * width <= expected.limits.max_pixels + height + width, f"a frame of {width} x {height} pixels")
    earlier_s = -1.0 if again or not frames else frames[-1].time_s
    latest = expected.limits.max_duration_s + DURATION_GRACE_S
    _require(_is_number(time_s) and earlier_s < time_s <= latest and time_s >= 0, "times out of order")
    return again, (height, width, float(time_s))
