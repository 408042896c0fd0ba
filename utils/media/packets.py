"""Containers of video and sound: opened without trust, and read packet by packet before anything is decoded.

Called by `video.py` and `audio.py`. FFmpeg only ever sees a file object of ours with the demuxer already fixed, so
no playlist, script or reference inside a file can make it open a second one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import av

from utils.errors import DecoderLimitError, MediaCorruptError, UnsupportedMediaError
from utils.media.headers import lacks_index
from utils.media.limits import MediaLimits
from utils.media.sniff import MediaFormat
from utils.types import MediaKind

# FFmpeg's demuxer for each of our formats: the name to open with, and the names it may answer to.
_DEMUXERS = {
    "mp4": ("mov", "mov,mp4,m4a,3gp,3g2,mj2"),
    "mov": ("mov", "mov,mp4,m4a,3gp,3g2,mj2"),
    "matroska": ("matroska", "matroska,webm"),
    "webm": ("matroska", "matroska,webm"),
    "avi": ("avi", "avi"),
    "m4a": ("mov", "mov,mp4,m4a,3gp,3g2,mj2"),
    "oga": ("ogg", "ogg"),
    "wma": ("asf", "asf"),
    **{name: (name, name) for name in ("flv", "mpegts", "mpeg", "mpegvideo", "asf", "ogg")},
    **{name: (name, name) for name in ("wav", "flac", "mp3", "aac", "amr")},
}
STREAMS = ("mpegts", "mpeg", "mpegvideo", "asf", "ogg")
"""Containers without an index that can be trusted: read from their beginning, their length told by the packets."""

CODECS = frozenset(
    ("h264", "hevc", "av1", "vp8", "vp9", "vp6", "vp6f", "vp6a", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v2",
     "msmpeg4v3", "h263", "h263p", "flv1", "flashsv", "wmv1", "wmv2", "wmv3", "vc1", "mjpeg", "prores", "dnxhd",
     "dvvideo", "theora", "huffyuv", "ffvhuff", "ffv1", "utvideo", "svq1", "svq3", "cinepak", "indeo3", "rawvideo",
     "qtrle", "png")
)  # fmt: skip
"""Video codecs that we decode; a rare one is not worth the risk of its decoder."""

_SOUND = {"aac", "ac3", "mp2float", "mp3float"}  # asked what sound a transport stream has, or its copy would have none
_DECODERS = ",".join(sorted(CODECS | _SOUND | {"flv", "libdav1d", "libaom-av1", "libvpx", "libvpx-vp9"}))

SOUND_CODECS = frozenset(
    ("aac", "ac3", "adpcm_g722", "adpcm_ima_qt", "adpcm_ima_wav", "adpcm_ms", "adpcm_swf", "alac", "amr_nb", "amr_wb",
     "dts", "eac3", "flac", "gsm", "gsm_ms", "mp1", "mp2", "mp3", "nellymoser", "opus", "pcm_alaw", "pcm_f32be",
     "pcm_f32le", "pcm_f64be", "pcm_f64le", "pcm_mulaw", "pcm_s16be", "pcm_s16le", "pcm_s24be", "pcm_s24le",
     "pcm_s32be", "pcm_s32le", "pcm_s8", "pcm_u8", "speex", "vorbis", "wmalossless", "wmapro", "wmav1", "wmav2",
     "wmavoice")
)  # fmt: skip
"""Sound codecs that we decode."""

_SOUND_DECODERS = ",".join(
    sorted(
        SOUND_CODECS
        | {"amrnb", "amrwb", "dca", "g722", "libopencore_amrnb", "libopencore_amrwb", "libopus", "libspeex"}
        | {"libvorbis", "mp1float", "mp2float", "mp3float"}
    )
)

_UNDECLARED = ("mp3", "aac", "amr", "oga")
"""Formats without a length in their header: FFmpeg guesses one, from the first packets' size or the last page."""

NO_INDEX = (
    "The file has no index (`moov`): it was broken off before its end was written. With a whole file of the same "
    "device, `untrunc WHOLE.mp4 THIS.mp4` makes a new index."
)
MAX_FRAMES = 2_000_000
"""Frames of one clip that are counted at most: two hours at 240 frames per second and some."""

MAX_BROKEN = 2000
"""Packets that cannot be decoded, and changes of the form of sound, after which a clip or recording ends: more than a
minute of them is no damage but a bomb."""
FAILURES = (av.error.FFmpegError, OSError)
"""What reading and decoding raise; OSError where a damaged size leads to a place that no file can have."""


@dataclass(frozen=True)
class Scan:
    """What the packets tell: times and key frames in display order (ticks of the stream), before any decoding.

    `pixels` are those of a frame, by the header; `others` is the number of further video tracks and cover pictures.
    """

    times: list[int]
    keys: list[int]
    step: float
    tick_s: float
    codec: str
    truncated: bool
    pixels: int = 0
    others: int = 0

    @property
    def duration_s(self) -> float:
        """From the first frame to the end of the last one, seconds."""
        return round((self.times[-1] - self.times[0] + self.step) * self.tick_s, 6)

    @property
    def fps(self) -> float | None:
        """Mean frames per second; None where only one frame is known."""
        span = self.times[-1] - self.times[0]
        return round((len(self.times) - 1) / (span * self.tick_s), 4) if span > 0 else None


@contextlib.contextmanager
def opened(
    file: BinaryIO, container: MediaFormat, limits: MediaLimits, *, sound: bool = False
) -> Iterator[tuple[Any, Any]]:
    """The demuxer on the file and its best video stream, or `sound` stream, within the limits by its header."""
    demuxer, names = _DEMUXERS[container.name]
    options = {
        "format_whitelist": names,
        "protocol_whitelist": "none",
        "codec_whitelist": _SOUND_DECODERS if sound else _DECODERS,
        "max_pixels": str(limits.max_pixels),
    }
    file.seek(0)
    try:
        source = av.open(
            file, "r", format=demuxer, options=options, io_open=_refuse_second_file, metadata_errors="replace"
        )
    except (*FAILURES, ValueError) as error:
        raise_for_memory(error)
        if lacks_index(file, container.name):
            raise MediaCorruptError(NO_INDEX) from error
        raise MediaCorruptError(f"The {container.name} container cannot be opened ({reason(error)}).") from error
    with source:
        stream = _sound_stream(source) if sound else _video_stream(source)
        context = stream.codec_context
        context.thread_count = 1
        if not sound and context.width and context.height:
            limits.check_size(context.width, context.height)
        limits.check_duration(declared_s(source, stream, container) or 0.0)
        yield source, stream


@contextlib.contextmanager
def opened_any(file: BinaryIO, container: MediaFormat, limits: MediaLimits) -> Iterator[tuple[Any, Any]]:
    """As `opened`, with the best video stream, or the best sound stream where there is sound alone."""
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(opened(file, container, limits, sound=container.kind is MediaKind.AUDIO))
        except UnsupportedMediaError as error:
            if not error.facts.get("only_sound"):
                raise
            found = stack.enter_context(opened(file, container, limits, sound=True))
        yield found


def read_tags(file: BinaryIO, container: MediaFormat, limits: MediaLimits) -> list[tuple[str, str]]:
    """Key and text of each tag of a film or recording and of its streams."""
    with opened_any(file, container, limits) as (source, _):
        told = [source.metadata, *(stream.metadata for stream in source.streams)]
        return [(str(key), str(text)) for metadata in told for key, text in metadata.items()]


def declared_s(source: Any, stream: Any, container: MediaFormat) -> float | None:
    """How long a stream is by its header, seconds; None where it does not say."""
    if container.name in (*_UNDECLARED, *STREAMS):
        return None
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return source.duration / 1e6 if source.duration else None


def _refuse_second_file(untrusted_url: str, flags: int, options: dict[str, str]) -> None:
    raise PermissionError("a video may not refer to another file")


def _video_stream(source: Any) -> Any:
    moving = [s for s in source.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not moving:
        raise UnsupportedMediaError("There is no video in the file.", only_sound=bool(source.streams.audio))
    best = source.streams.best("video")
    stream = best if best in moving else moving[0]
    if stream.codec_context is None:
        raise UnsupportedMediaError("The video codec is unknown.")
    codec = stream.codec_context.codec.canonical_name
    if codec not in CODECS:
        raise UnsupportedMediaError(f"The video codec {codec} is not supported.")
    return stream


def _sound_stream(source: Any) -> Any:
    stream = source.streams.best("audio")
    if stream is None:
        raise UnsupportedMediaError("There is no sound in the file.")
    codec = None if stream.codec_context is None else stream.codec_context.codec.canonical_name
    if codec not in SOUND_CODECS:
        raise UnsupportedMediaError(f"The sound codec {codec or 'of the file'} is not supported.")
    return stream


def reason(error: BaseException) -> str:
    """Why FFmpeg refused, in its words."""
    return getattr(error, "strerror", None) or type(error).__name__


def scan_packets(file: BinaryIO, container: MediaFormat, limits: MediaLimits, truncated: bool) -> Scan:
    """Read all packets of a video without decoding any.

    Args:
        truncated: whether the end is known to be missing.

    Raises:
        MediaTooLongError: longer than allowed, by the packets.
        DecoderLimitError: more than `MAX_FRAMES` frames.
        MediaCorruptError: there is no frame, or the container cannot be opened.
        UnsupportedMediaError: no video in it, or a codec outside `CODECS`.
    """
    times: set[int] = set()
    keys: set[int] = set()
    last_duration = 0
    with opened(file, container, limits) as (source, stream):
        tick_s = float(stream.time_base)
        try:
            for packet in packets_of(source, stream):
                time = clock(packet, container)
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
            raise_for_memory(error)
            truncated = True  # a broken packet ends the clip here; what came before it counts
        codec = stream.codec_context.codec.canonical_name
        rate = float(stream.average_rate or 0)
        pixels = stream.codec_context.width * stream.codec_context.height
        others = min(len(source.streams.video) - 1, 1000)
    if not times:
        raise MediaCorruptError("There is no frame in the video.")
    order = sorted(times)
    if len(order) > 1:
        step = (order[-1] - order[0]) / (len(order) - 1)
    else:
        step = last_duration or (1 / (rate * tick_s) if rate else 0.0)
    known = [] if container.name in STREAMS else sorted(keys)
    scan = Scan(order, known, step, tick_s, codec, truncated, pixels, others)
    limits.check_duration(scan.duration_s)
    return scan


def packets_of(source: Any, *streams: Any) -> Iterator[Any]:
    """The packets of some streams; those of streams that appear in the middle of a damaged file are left out.

    PyAV knows the streams that were there when the file was opened, and stumbles over a packet of another one.
    """
    while True:
        try:
            yield from source.demux(*streams)
        except IndexError:
            continue  # that packet is gone, so this comes to an end
        return


class Decoder:
    """Decodes one stream packet after packet, over damaged ones; `damaged` says whether there was one."""

    def __init__(self, source: Any, stream: Any, prepare: Callable[[Any], None] | None = None) -> None:
        self._source, self._stream, self._prepare = source, stream, prepare
        self._broken = 0
        self.damaged = False

    def frames(self) -> Iterator[Any]:
        """The frames from the present place on; it ends early after `MAX_BROKEN` broken packets."""
        packets = packets_of(self._source, self._stream)
        while self._broken <= MAX_BROKEN:
            try:
                packet = next(packets, None)
            except FAILURES as error:
                raise_for_memory(error)
                self.damaged = True
                return
            if packet is None:
                return
            if not packet.size and packet.dts is not None:
                continue  # an empty packet would tell the decoder that the stream ends
            if self._prepare is not None:
                self._prepare(packet)
            try:
                frames = packet.decode()
            except FAILURES as error:
                self.note(error)
                continue
            yield from frames
        self.damaged = True

    def note(self, error: BaseException) -> None:
        """Count what could not be decoded."""
        raise_for_memory(error)
        self.damaged = self.damaged or not isinstance(error, av.error.EOFError)
        self._broken += 1


def raise_for_memory(error: BaseException) -> None:
    """Raise an error again that is no damage of the file: a lack of memory."""
    if isinstance(error, MemoryError):
        raise error


def clock(item: Any, container: MediaFormat) -> int | None:
    """The time of a packet or frame in ticks; AVI and bare streams store only the order of decoding."""
    first: int | None
    second: int | None
    first, second = (item.dts, item.pts) if container.name in ("avi", "mpegvideo") else (item.pts, item.dts)
    return first if first is not None else second
