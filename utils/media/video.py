"""Videos: a file in, N upright RGB frames out, spread evenly over the clip.

Two passes. The first reads the packets without decoding them: it knows the time of every frame and key frame, also
where the header lacks a duration, lies about it, or the frame rate varies. The second decodes towards the chosen times
and seeks where that saves work. FFmpeg only ever sees a file object of ours with the demuxer already fixed, so no
playlist, script or reference inside a file can make it open a second one.
"""

from __future__ import annotations

import bisect
import contextlib
import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np

from utils.errors import DecoderLimitError, MediaCorruptError, UnsupportedMediaError
from utils.media.endings import ends_early
from utils.media.limits import MAX_VIDEO_SIDE, Facts, MediaLimits
from utils.media.sniff import SNIFF_BYTES, MediaFormat, sniff
from utils.types import Frame, MediaKind, Pixels

# FFmpeg's demuxer for each of our formats: the name to open with, and the names it may answer to.
_DEMUXERS = {
    "mp4": ("mov", "mov,mp4,m4a,3gp,3g2,mj2"),
    "mov": ("mov", "mov,mp4,m4a,3gp,3g2,mj2"),
    "matroska": ("matroska", "matroska,webm"),
    "webm": ("matroska", "matroska,webm"),
    "avi": ("avi", "avi"),
    "flv": ("flv", "flv"),
}

CODECS = frozenset(
    ("h264", "hevc", "av1", "vp8", "vp9", "vp6", "vp6f", "vp6a", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v2",
     "msmpeg4v3", "h263", "h263p", "flv1", "flashsv", "wmv1", "wmv2", "wmv3", "vc1", "mjpeg", "prores", "dnxhd",
     "dvvideo", "theora", "huffyuv", "ffvhuff", "ffv1", "utvideo", "svq1", "svq3", "cinepak", "indeo3", "rawvideo",
     "qtrle", "png")
)  # fmt: skip
"""Video codecs that we decode; a rare one is not worth the risk of its decoder."""

_DECODERS = ",".join(sorted(CODECS | {"flv", "libdav1d", "libaom-av1", "libvpx", "libvpx-vp9"}))

MAX_FRAMES = 2_000_000
"""Frames of one clip that are counted at most: two hours at 240 frames per second and some."""

SEEK_GAIN = 24
"""Seek to a key frame only where it skips at least this many frames; a seek costs about as much as decoding them."""


@dataclass(frozen=True)
class _Scan:
    """What the packets tell: times and key frames in display order (ticks of the stream), before any decoding."""

    times: list[int]
    keys: list[int]
    step: float
    tick_s: float
    codec: str
    truncated: bool

    @property
    def duration_s(self) -> float:
        return round((self.times[-1] - self.times[0] + self.step) * self.tick_s, 6)

    @property
    def fps(self) -> float | None:
        span = self.times[-1] - self.times[0]
        return round((len(self.times) - 1) / (span * self.tick_s), 4) if span > 0 else None


def load_codecs() -> None:
    """Import what PyAV would import at the first stream of each kind.

    For the confined child, which can open no file afterwards.
    """
    for package in ("audio", "codec", "container", "sidedata", "subtitles", "video"):
        found = importlib.import_module(f"av.{package}")
        for module in pkgutil.iter_modules(found.__path__, f"av.{package}."):
            importlib.import_module(module.name)


def decode_video(
    untrusted: Path | BinaryIO, frames: int, limits: MediaLimits, container: MediaFormat | None = None
) -> tuple[tuple[Frame, ...], Facts]:
    """Decode frames that are spread evenly over a clip.

    Rotation is applied. Frames whose longer side exceeds `MAX_VIDEO_SIDE` are scaled down to it. A damaged file gives
    what could be decoded (notice `truncated`). Sound is ignored.

    Args:
        untrusted: the file's path, or the open, seekable file.
        frames: how many; a clip with fewer gives all it has.
        limits: what is accepted.
        container: the sniffed format; None sniffs here.

    Returns:
        The frames, (H, W, 3) uint8 RGB, upright, times in seconds from the first frame and strictly increasing; and
        what was measured (`width`, `height`: upright, before scaling).

    Raises:
        UnsupportedMediaError: not one of our containers, no video in it, or a codec outside `CODECS`.
        MediaDimensionsError: header or a frame outside the limits.
        MediaTooLongError: longer than allowed, by the header or by the packets.
        DecoderLimitError: more than `MAX_FRAMES` frames.
        MediaCorruptError: nothing could be decoded.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(untrusted.open("rb")) if isinstance(untrusted, Path) else untrusted
        if container is None:
            file.seek(0)
            container = sniff(file.read(SNIFF_BYTES))
        if container.kind is not MediaKind.VIDEO:
            raise UnsupportedMediaError(f"The file is no video but {container.name}.")
        cut = ends_early(file, container.name)
        try:
            scan = _scan(file, container, limits, cut)
        except UnsupportedMediaError as error:
            if cut:
                raise MediaCorruptError("The video ends before its index; nothing can be decoded.") from error
            raise
        chosen = choose_times(scan.times, frames)
        taken, size, damaged = _decode_at(file, container, scan, chosen, limits)
    if not taken:
        raise MediaCorruptError("No frame of the video could be decoded.")
    truncated = scan.truncated or damaged or len(taken) < len(chosen)
    notices = ("truncated",) if truncated else ()
    return tuple(taken), Facts(*size, scan.duration_s, scan.fps, scan.codec, notices)


def choose_times(times: list[int], count: int) -> list[int]:
    """Pick times spread evenly over a clip, each in the middle of its share.

    Args:
        times: of all frames, strictly increasing; the last one's duration is taken as that of the frame before it.
        count: how many are wanted.

    Returns:
        `count` different ones in order, or all where there are no more.
    """
    total = len(times)
    if total <= count:
        return list(times)
    span = times[-1] - times[0] + (times[-1] - times[0]) / (total - 1)
    picked: list[int] = []
    for share in range(count):
        target = times[0] + span * (share + 0.5) / count
        shown = bisect.bisect_right(times, target) - 1
        earliest = picked[-1] + 1 if picked else 0
        picked.append(min(max(shown, earliest), total - (count - share)))
    return [times[index] for index in picked]


@contextlib.contextmanager
def _opened(file: BinaryIO, container: MediaFormat, limits: MediaLimits) -> Iterator[tuple[Any, Any]]:
    """The demuxer on the file and its best video stream, within the limits by its header."""
    demuxer, names = _DEMUXERS[container.name]
    options = {
        "format_whitelist": names,
        "protocol_whitelist": "none",
        "codec_whitelist": _DECODERS,
        "max_pixels": str(limits.max_pixels),
    }
    file.seek(0)
    try:
        source = av.open(
            file, "r", format=demuxer, options=options, io_open=_refuse_second_file, metadata_errors="replace"
        )
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(error, MemoryError):
            raise
        raise MediaCorruptError(f"The {container.name} container cannot be opened ({_reason(error)}).") from error
    with source:
        stream = _video_stream(source)
        context = stream.codec_context
        context.thread_count = 1
        if context.width and context.height:
            limits.check_size(context.width, context.height)
        length = stream.duration * float(stream.time_base) if stream.duration else (source.duration or 0) / 1e6
        limits.check_duration(length)
        yield source, stream


def _refuse_second_file(untrusted_url: str, flags: int, options: dict[str, str]) -> None:
    raise PermissionError("a video may not refer to another file")


def _video_stream(source: Any) -> Any:
    moving = [s for s in source.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not moving:
        raise UnsupportedMediaError("There is no video in the file.")
    best = source.streams.best("video")
    stream = best if best in moving else moving[0]
    if stream.codec_context is None:
        raise UnsupportedMediaError("The video codec is unknown.")
    codec = stream.codec_context.codec.canonical_name
    if codec not in CODECS:
        raise UnsupportedMediaError(f"The video codec {codec} is not supported.")
    return stream


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or type(error).__name__


def _scan(file: BinaryIO, container: MediaFormat, limits: MediaLimits, truncated: bool) -> _Scan:
    times: set[int] = set()
    keys: set[int] = set()
    last_duration = 0
    with _opened(file, container, limits) as (source, stream):
        tick_s = float(stream.time_base)
        try:
            for packet in source.demux(stream):
                time = _clock(packet, container)
                if time is None or not packet.size or packet.is_discard:
                    continue
                times.add(time)
                if packet.is_keyframe:
                    keys.add(time)
                last_duration = packet.duration or last_duration
                if len(times) > MAX_FRAMES:
                    raise DecoderLimitError(f"The video has more than {MAX_FRAMES} frames.")
                limits.check_duration(abs(time - next(iter(times))) * tick_s)
        except av.error.FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            truncated = True  # a broken packet ends the clip here; what came before it counts
        codec = stream.codec_context.codec.canonical_name
        rate = float(stream.average_rate or 0)
    if not times:
        raise MediaCorruptError("There is no frame in the video.")
    order = sorted(times)
    if len(order) > 1:
        step = (order[-1] - order[0]) / (len(order) - 1)
    else:
        step = last_duration or (1 / (rate * tick_s) if rate else 0.0)
    scan = _Scan(order, sorted(keys), step, tick_s, codec, truncated)
    limits.check_duration(scan.duration_s)
    return scan


def _clock(item: Any, container: MediaFormat) -> int | None:
    """The time of a packet or frame in ticks; AVI stores none for display, only the order of decoding."""
    first: int | None
    second: int | None
    first, second = (item.dts, item.pts) if container.name == "avi" else (item.pts, item.dts)
    return first if first is not None else second


class _Reader:
    """Decodes forward through one stream, over damaged packets, and seeks."""

    def __init__(self, source: Any, stream: Any, container: MediaFormat, step: float) -> None:
        self._source = source
        self._stream = stream
        self._container = container
        self._step = max(1, round(step))
        self._frames = self._decode()
        self.position: int | None = None
        self.damaged = False

    def _decode(self) -> Iterator[Any]:
        packets = self._source.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:
                self.damaged = True
                return
            if packet is None:
                return
            if not packet.size and packet.dts is not None:
                continue  # an empty packet would tell the decoder that the stream ends
            try:
                frames = packet.decode()
            except av.error.FFmpegError as error:
                if isinstance(error, MemoryError):
                    raise
                self.damaged = not isinstance(error, av.error.EOFError) or self.damaged
                continue
            yield from frames

    def next(self) -> Any | None:
        """The next frame in display order; None at the end."""
        frame = next(self._frames, None)
        if frame is not None:
            time = _clock(frame, self._container)
            if time is None:
                time = 0 if self.position is None else self.position + self._step
            self.position = time
            self.damaged = self.damaged or bool(getattr(frame, "is_corrupt", False))
        return frame

    def seek(self, time: int) -> None:
        """Continue at the key frame at or before a time."""
        self._source.seek(time, stream=self._stream, backward=True)
        self._frames = self._decode()
        self.position = None


def _decode_at(
    file: BinaryIO, container: MediaFormat, scan: _Scan, chosen: list[int], limits: MediaLimits
) -> tuple[list[Frame], tuple[int, int], bool]:
    """The frames at the chosen times, the upright size of the first one, and whether damage was met."""
    taken: list[Frame] = []
    size = (0, 0)
    last: int | None = None
    may_seek = True
    damaged = False
    with contextlib.ExitStack() as stack:
        reader = _Reader(*stack.enter_context(_opened(file, container, limits)), container, scan.step)
        for target in chosen:
            key = _key_worth_seeking(scan, reader.position, target) if may_seek else None
            frame = _advance(reader, target, last, key)
            if key is not None and (frame is None or reader.position is None or reader.position > target):
                # The seek landed behind the target: the index is wrong, so read this clip from its beginning.
                may_seek, damaged = False, damaged or reader.damaged
                stack.close()
                reader = _Reader(*stack.enter_context(_opened(file, container, limits)), container, scan.step)
                frame = _advance(reader, target, last, None)
            if frame is None or reader.position is None:
                break
            limits.check_size(frame.width, frame.height)
            try:
                pixels, upright = _upright_rgb(frame)
            except (av.error.FFmpegError, ValueError) as error:
                if isinstance(error, MemoryError):
                    raise
                raise MediaCorruptError(f"A frame cannot be converted to RGB ({_reason(error)}).") from error
            size = size if taken else upright
            last = reader.position
            time_s = max(0.0, (last - scan.times[0]) * scan.tick_s)
            limits.check_duration(time_s)
            taken.append(Frame(len(taken), time_s, pixels))
        return taken, size, damaged or reader.damaged


def _advance(reader: _Reader, target: int, last: int | None, key: int | None) -> Any | None:
    """The first frame at or after the target and after the last one taken."""
    if key is not None:
        try:
            reader.seek(key)
        except av.error.FFmpegError:
            return None
    while (frame := reader.next()) is not None:
        if reader.position is not None and reader.position >= target and (last is None or reader.position > last):
            return frame
    return None


def _key_worth_seeking(scan: _Scan, position: int | None, target: int) -> int | None:
    """The last key frame at or before the target, if going there skips enough frames."""
    at = bisect.bisect_right(scan.keys, target) - 1
    if at < 0:
        return None
    here = scan.times[0] if position is None else position
    skipped = bisect.bisect_left(scan.times, scan.keys[at]) - bisect.bisect_left(scan.times, here)
    return scan.keys[at] if skipped >= SEEK_GAIN else None


def _upright_rgb(frame: Any) -> tuple[Pixels, tuple[int, int]]:
    """Pixels of a frame, upright and not larger than `MAX_VIDEO_SIDE`, and its upright size before scaling."""
    width, height = frame.width, frame.height
    turns = round(frame.rotation / 90) % 4
    scale = min(1.0, MAX_VIDEO_SIDE / max(width, height))
    if scale < 1.0:
        small = {"width": max(1, round(width * scale)), "height": max(1, round(height * scale))}
        rgb = frame.reformat(format="rgb24", interpolation="AREA", threads=1, **small).to_ndarray()
    else:
        rgb = frame.reformat(format="rgb24", threads=1).to_ndarray()
    pixels = np.ascontiguousarray(np.rot90(rgb, turns))
    return pixels, (height, width) if turns % 2 else (width, height)
