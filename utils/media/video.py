"""Videos: a file in, upright RGB frames out, spread evenly over the clip: one a second, within bounds.

Two passes. The first reads the packets without decoding them: it knows the time of every frame and key frame, also
where the header lacks a duration, lies about it, or the frame rate varies. The second decodes towards the chosen times
and seeks where that saves work. How the container is opened and read stands in `packets.py`.
"""

from __future__ import annotations

import bisect
import contextlib
import importlib
import math
import pkgutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import av

from utils.errors import MediaCorruptError, UnsupportedMediaError
from utils.media.display import HLG, PQ, display_size, to_display
from utils.media.headers import is_truncated, lacks_index
from utils.media.limits import FULL_SIZE_FRAMES, MAX_VIDEO_SIDE, Facts, MediaLimits, span_frames
from utils.media.packets import NO_INDEX, Decoder, Scan, clock, opened, raise_for_memory, reason, scan_packets
from utils.media.sniff import SNIFF_BYTES, MediaFormat, sniff
from utils.types import Frame, MediaKind

OnFrame = Callable[[Frame], None]

SPARING = frozenset(("h264",))
"""Codecs whose frames say of themselves that no other needs them (H.264, 7.4.1: nal_ref_idc), so that they need not be
decoded unless they are wanted. HEVC's may still be needed by a higher temporal layer."""

SEEK_GAIN = 24
"""Seek to a key frame only where it skips at least this many frames; a seek costs about as much as decoding them."""

MAX_DECODED = 4_000_000_000
"""Pixels decoded on the way to the frames of a long clip, beyond which key frames nearby are taken instead: two
thousand frames of 1920 x 1080, some twenty seconds."""


def load_codecs() -> None:
    """Import what PyAV would import at the first stream of each kind.

    For the confined child, which can open no file afterwards.
    """
    for package in ("audio", "codec", "container", "sidedata", "subtitles", "video"):
        found = importlib.import_module(f"av.{package}")
        for module in pkgutil.iter_modules(found.__path__, f"av.{package}."):
            importlib.import_module(module.name)


def decode_video(
    untrusted: Path | BinaryIO,
    frames: int,
    limits: MediaLimits,
    container: MediaFormat | None = None,
    on_frame: OnFrame | None = None,
    *,
    most: int = 0,
    spans: Sequence[tuple[float, float]] = (),
) -> tuple[tuple[Frame, ...], Facts]:
    """Decode frames that are spread evenly over a clip, or all of a few parts of it.

    Rotation is applied. Frames whose longer side exceeds `MAX_VIDEO_SIDE` are scaled down to it, many frames further. A
    damaged file gives what could be decoded (notice `truncated`). Sound is left to `audio.py`.

    Args:
        untrusted: the file's path, or the open, seekable file.
        frames: how many at least; a clip with fewer gives all it has.
        container: the sniffed format; None sniffs here.
        on_frame: given each frame as soon as it is there; index 0 again means that decoding had to begin anew, at most
            once, and that the frames so far do not count.
        most: of a clip that lasts more seconds than `frames`, one frame a second up to so many.
        spans: first second and end of the only parts that are wanted, in order: of each up to `SPAN_FPS` a second.

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
        cut = is_truncated(file, container.name)
        try:
            scan = scan_packets(file, container, limits, cut)
        except (UnsupportedMediaError, MediaCorruptError) as error:
            if cut and lacks_index(file, container.name) and not error.facts.get("only_sound"):
                raise MediaCorruptError(NO_INDEX) from error
            raise
        chosen = choose_times(scan.times, max(frames, min(most, math.ceil(scan.duration_s))))
        if spans:
            chosen = _within(scan, spans)
        elif len(chosen) > frames and _on_the_way(scan, chosen) * scan.pixels > MAX_DECODED:
            chosen = _to_keys(scan, chosen)
        taken, size, met = _decode_sparingly(file, container, scan, chosen, limits, on_frame or (lambda frame: None))
    if not taken:
        raise MediaCorruptError("No frame of the video could be decoded.")
    truncated = scan.truncated or "truncated" in met or len(taken) < len(chosen)
    notices = (*(("truncated",) if truncated else ()), *(met - {"truncated"}))
    return tuple(taken), Facts(*size, scan.duration_s, scan.fps, scan.codec, notices, scan.others)


def choose_times(times: list[int], count: int) -> list[int]:
    """Pick times spread evenly over a clip, each in the middle of its share.

    Args:
        times: of all frames, strictly increasing; the last one's duration is taken as that of the frame before it.

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


def _within(scan: Scan, spans: Sequence[tuple[float, float]]) -> list[int]:
    """Times of the frames in parts of a clip, of each at most as many as `span_frames` says."""
    chosen: list[int] = []
    for first_s, last_s in spans:
        times = [t for t in scan.times if first_s <= (t - scan.times[0]) * scan.tick_s < last_s]
        chosen += choose_times(times, span_frames(first_s, last_s))
    return chosen


def _on_the_way(scan: Scan, chosen: list[int]) -> int:
    """How many frames are decoded towards the chosen ones, each from the one before or from a key frame."""
    count, here = 0, scan.times[0]
    for target in chosen:
        at = bisect.bisect_right(scan.keys, target) - 1
        here = max(here, scan.keys[at]) if at >= 0 else here
        count += bisect.bisect_right(scan.times, target) - bisect.bisect_left(scan.times, here)
        here = target
    return count


def _to_keys(scan: Scan, chosen: list[int]) -> list[int]:
    """The key frame next before each of the chosen times where that is not before the one before, else that time."""
    out = [chosen[0]]
    for target in chosen[1:]:
        at = bisect.bisect_right(scan.keys, target) - 1
        out.append(scan.keys[at] if at >= 0 and scan.keys[at] > out[-1] else target)
    return out


class _Reader(Decoder):
    """Reads forward through one stream, and seeks.

    Args:
        step: mean ticks from frame to frame.
        wanted: times of the only frames that matter: what no other frame needs is then not decoded; None for all.
    """

    def __init__(
        self, source: Any, stream: Any, container: MediaFormat, step: float, wanted: frozenset[int] | None = None
    ) -> None:
        super().__init__(source, stream, None if wanted is None else self._spare)
        self._container, self._wanted = container, wanted or frozenset()
        self._step = max(1, round(step))
        self._frames = self.frames()
        self.position: int | None = None

    def _spare(self, packet: Any) -> None:
        needed = not packet.size or clock(packet, self._container) in self._wanted
        self._stream.codec_context.skip_frame = "DEFAULT" if needed else "NONREF"

    def next(self) -> Any | None:
        """The next frame in display order; None at the end."""
        frame = next(self._frames, None)
        if frame is not None:
            time = clock(frame, self._container)
            if time is None:
                time = 0 if self.position is None else self.position + self._step
            self.position = time
            self.damaged = self.damaged or bool(getattr(frame, "is_corrupt", False))
        return frame

    def seek(self, time: int) -> None:
        """Continue at the key frame at or before a time."""
        self._source.seek(time, stream=self._stream, backward=True)
        self._frames = self.frames()
        self.position = None


def _decode_sparingly(
    file: BinaryIO, container: MediaFormat, scan: Scan, chosen: list[int], limits: MediaLimits, on_frame: OnFrame
) -> tuple[list[Frame], tuple[int, int], set[str]]:
    """See `_decode_at`; frames that nothing needs are left out where that certainly leads to the same result."""
    # AVI stores no times for display, and where every other frame is wanted there is little to leave out.
    if scan.codec in SPARING and container.name != "avi" and len(scan.times) > 2 * len(chosen):
        taken, size, met = _decode_at(file, container, scan, chosen, limits, on_frame, frozenset(chosen))
        exact = [max(0.0, (time - scan.times[0]) * scan.tick_s) for time in chosen]
        if "truncated" not in met and [frame.time_s for frame in taken] == exact:
            return taken, size, met
    return _decode_at(file, container, scan, chosen, limits, on_frame)


def _decode_at(
    file: BinaryIO,
    container: MediaFormat,
    scan: Scan,
    chosen: list[int],
    limits: MediaLimits,
    on_frame: OnFrame,
    wanted: frozenset[int] | None = None,
) -> tuple[list[Frame], tuple[int, int], set[str]]:
    """The frames at the chosen times, the upright size of the first one, and notices of what was met."""
    taken: list[Frame] = []
    size = (0, 0)
    last: int | None = None
    may_seek = True
    met: set[str] = set()
    side = round(MAX_VIDEO_SIDE * min(1.0, math.sqrt(FULL_SIZE_FRAMES / max(1, len(chosen)))))
    with contextlib.ExitStack() as stack:
        source, stream = stack.enter_context(opened(file, container, limits))
        aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
        reader = _Reader(source, stream, container, scan.step, wanted)
        for target in chosen:
            key = _key_worth_seeking(scan, reader.position, target) if may_seek else None
            frame = _advance(reader, target, last, key)
            if key is not None and (frame is None or reader.position is None or reader.position > target):
                # The seek landed behind the target: the index is wrong, so read this clip from its beginning.
                may_seek = False
                met |= {"truncated"} if reader.damaged else set()
                stack.close()
                reader = _Reader(*stack.enter_context(opened(file, container, limits)), container, scan.step, wanted)
                frame = _advance(reader, target, last, None)
            if frame is None or reader.position is None:
                break
            limits.check_size(*display_size(frame, aspect))
            met |= {"hdr"} if frame.color_trc in (PQ, HLG) else set()
            try:
                pixels, upright = to_display(frame, aspect, side)
            except (av.error.FFmpegError, ValueError) as error:
                raise_for_memory(error)
                raise MediaCorruptError(f"A frame cannot be converted to RGB ({reason(error)}).") from error
            size = size if taken else upright
            last = reader.position
            time_s = max(0.0, (last - scan.times[0]) * scan.tick_s)
            limits.check_duration(time_s)
            taken.append(Frame(len(taken), time_s, pixels))
            on_frame(taken[-1])
        return taken, size, met | ({"truncated"} if reader.damaged else set())


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


def _key_worth_seeking(scan: Scan, position: int | None, target: int) -> int | None:
    """The last key frame at or before the target, if going there skips enough frames."""
    at = bisect.bisect_right(scan.keys, target) - 1
    if at < 0:
        return None
    here = scan.times[0] if position is None else position
    skipped = bisect.bisect_left(scan.times, scan.keys[at]) - bisect.bisect_left(scan.times, here)
    return scan.keys[at] if skipped >= SEEK_GAIN else None
