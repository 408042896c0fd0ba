"""Films and recordings without what was written beside pictures and sound: places, names, dates, comments, tracks.

Runs in the confined child. The packets of the best video and sound stream go into a new container of the same kind; no
frame and no sample is decoded or encoded again. User data within the streams of H.264, H.265, AV1 and MPEG-2 go too.

Supplemental enhancement information (SEI; H.264 and H.265, annex D) may hold anything: settings, places, captions. Of
it only what a player needs stays: where decoding may begin, how two views lie in a picture, orientation, light and
colours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import av
from av.bitstream import BitStreamFilterContext

from utils.errors import MediaCorruptError
from utils.media.headers import is_truncated
from utils.media.limits import MediaLimits
from utils.media.packets import FAILURES, opened_any, packets_of, raise_for_memory, reason
from utils.media.sniff import MediaFormat

BUFFER_BYTES = 1 << 18
_ANONYMOUS = {"fflags": "+bitexact"}  # the writing program leaves its version out

_MUXERS = {"m4a": "ipod", "aac": "adts", "wma": "asf", "oga": "ogg"}
"""FFmpeg's name of a container where it is not ours."""

_TAGGED = ("avi", "mov")
"""Containers in which the tag of a codec tells its form, such as the order of raw pixels."""

_UNITS = {"av1": "filter_units=remove_types=5", "mpeg2video": "filter_units=remove_types=178"}
"""FFmpeg's filter that takes out metadata units (AV1) or user data (MPEG-2)."""

_LISTS = re.compile(rb"LIST....(?:INFO|hdrl|strl|odml)|strn....[ -~]{4}", re.DOTALL)
"""Lists and names of an AVI file; within a packet, they are there because a length is damaged."""

_PROGRAM_TAGS = ("encoder", "software", "major_brand", "compatible_brands", "vendor_id", "language")
"""What an encoder may write into the stream as well."""

_SHORTEST_TAG = 6

KEPT_MESSAGES = frozenset((6, 45, 47, 137, 144, 147))
"""Recovery point, frame packing, display orientation, mastering display, content light level, alternative transfer."""

_ESCAPED = re.compile(rb"\x00\x00(?=[\x00-\x03])")
_START_CODE = re.compile(rb"\x00\x00\x01")
_FILLER_MESSAGE = 3


def copy_film(untrusted_file: BinaryIO, container: MediaFormat, limits: MediaLimits, out: Any) -> None:
    """Write a film or recording again, in a container like the original's.

    Of several video or sound streams the best is kept; rotation, edit lists and times stay.

    Args:
        out: has `write`, `seek` and `tell`.

    Raises:
        MediaError: as `packets.opened` raises.
        MediaCorruptError: the file is damaged, or its streams do not fit into a new container; what is in `out` then
            is of no use.
    """
    if is_truncated(untrusted_file, container.name):
        raise MediaCorruptError("The file ends early.")
    with opened_any(untrusted_file, container, limits) as (source, first):
        sound = source.streams.best("audio")
        unknown = sound is None or sound.codec_context is None
        streams = [first] if unknown or first.type == "audio" else [first, sound]
        try:
            with av.open(
                out, "w", format=_muxer(source, container), container_options=_ANONYMOUS, buffer_size=BUFFER_BYTES
            ) as sink:
                tracks = {stream.index: _Track(sink, stream) for stream in streams}
                swallowed = _swallowed(source, container)
                if any(swallowed(track.configuration) for track in tracks.values()):
                    raise MediaCorruptError("The file's header is damaged.")
                for packet in packets_of(source, *streams):
                    if not packet.size and packet.pts is None and packet.dts is None:
                        continue  # the end of a stream
                    tracks[packet.stream.index].write(packet, swallowed)
        except (*FAILURES, ValueError, IndexError) as error:
            raise_for_memory(error)
            raise MediaCorruptError(f"The file cannot be written again ({reason(error)}).") from error


def _muxer(source: Any, container: MediaFormat) -> str:
    """FFmpeg's name of the container; that of 3GPP is an MP4 to us, but holds codecs that an MP4 does not."""
    is_3gpp = container.name == "mp4" and source.metadata.get("major_brand", "").startswith("3g")
    return "3gp" if is_3gpp else _MUXERS.get(container.name, container.name)


def _swallowed(source: Any, container: MediaFormat) -> Callable[[bytes], bool]:
    """Tells whether bytes of a stream hold metadata, which a damaged length or place has made part of it."""
    tags = {
        value.encode()
        for holder in (source, *source.streams)
        for name, value in holder.metadata.items()
        if name.lower() not in _PROGRAM_TAGS and len(value) >= _SHORTEST_TAG
    }

    def look(data: bytes) -> bool:
        return any(tag in data for tag in tags) or (container.name == "avi" and _LISTS.search(data) is not None)

    return look


class _Track:
    """One stream on its way into the new container."""

    def __init__(self, sink: Any, stream: Any) -> None:
        self._sink = sink
        self._target = sink.add_stream_from_template(stream, opaque=True)
        context = stream.codec_context
        codec = context.codec.canonical_name
        if sink.format.name in _TAGGED:
            self._target.codec_context.codec_tag = context.codec_tag
        self._units = BitStreamFilterContext(_UNITS[codec], stream, self._target) if codec in _UNITS else None
        self._user_data = None
        self.configuration = bytes(context.extradata or b"")
        if codec in ("h264", "hevc"):
            self._user_data = UserDataFilter(self.configuration, is_hevc=codec == "hevc")
            self.configuration = self._user_data.configuration(self.configuration)
            self._target.codec_context.extradata = self.configuration

    def write(self, packet: Any, swallowed: Callable[[bytes], bool]) -> None:
        """Write one packet; MediaCorruptError where it is damaged."""
        if self._user_data is not None:
            packet.update(self._user_data.packet(bytes(packet)))
        if packet.is_corrupt or swallowed(bytes(packet)):
            raise MediaCorruptError("A packet of the file is damaged.")
        for clean in (packet,) if self._units is None else self._units.filter(packet):
            clean.stream = self._target
            self._sink.mux(clean)


class UserDataFilter:
    """Replaces user data in a stream's packets by filler, so that their sizes stay.

    Args:
        configuration: the decoder configuration of the stream (ISO/IEC 14496-15, 5.3.3 and 8.3.3), or its Annex B form.
    """

    def __init__(self, configuration: bytes, *, is_hevc: bool) -> None:
        self._is_hevc = is_hevc
        self._head_bytes = 2 if is_hevc else 1
        at = 21 if is_hevc else 4
        has_lengths = configuration[:1] == b"\1" and len(configuration) > at
        self._length_bytes = (configuration[at] & 3) + 1 if has_lengths else 0

    def packet(self, data: bytes) -> bytes:
        """A packet with filler in place of user data.

        Raises:
            ValueError: its units do not fill it.
        """
        clean = bytearray(data)
        for start, end in self._units(data):
            if self._is_sei(data[start]):
                clean[start:end] = self._clean(data[start:end])
        return bytes(clean)

    def configuration(self, data: bytes) -> bytes:
        """The decoder configuration without user data.

        Raises:
            ValueError, IndexError: it is cut off.
        """
        if not self._length_bytes:
            return self.packet(data)  # nothing, or units with start codes
        if not self._is_hevc:
            return data  # it has room for parameter sets only
        arrays, at = [], 23
        for _ in range(data[22]):
            start, count = at, int.from_bytes(data[at + 1 : at + 3], "big")
            at += 3
            for _ in range(count):
                at += 2 + int.from_bytes(data[at : at + 2], "big")
            if at > len(data):
                raise ValueError("the decoder configuration is cut off")
            if not self._is_sei(data[start] << 1):
                arrays.append(data[start:at])
        return data[:22] + bytes([len(arrays)]) + b"".join(arrays)

    def _units(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Start and end of each unit of at least one byte."""
        if not self._length_bytes:
            codes = [match.span() for match in _START_CODE.finditer(data)]
            ends = [start for start, _ in codes[1:]] + [len(data)]
            yield from ((start, end) for (_, start), end in zip(codes, ends, strict=True) if start < end)
            return
        at = 0
        while at < len(data):
            start = at + self._length_bytes
            at = start + int.from_bytes(data[at:start], "big")
            if at > len(data):
                raise ValueError("a unit is longer than its packet")
            if start < at:
                yield start, at

    def _is_sei(self, first: int) -> bool:
        return first >> 1 & 0x3F in (39, 40) if self._is_hevc else first & 0x1F == 6

    def _clean(self, unit: bytes) -> bytes:
        """Supplemental information of the same length without user data."""
        head, content = unit[: self._head_bytes], unit[self._head_bytes :].replace(b"\0\0\3", b"\0\0")
        needed = b"".join(message for kind, message in _messages(content) if kind in KEPT_MESSAGES)
        for kept in (_ESCAPED.sub(b"\0\0\3", needed), b""):
            room = len(unit) - len(head) - len(kept) - 1
            if room == 0:
                return unit  # nothing else was in it
            if room >= 2:
                return head + _filler(room) + kept + b"\x80"
        return head + bytes(len(unit) - len(head))


def _filler(count: int) -> bytes:
    """So many bytes of messages that say nothing, two at least."""
    size = count - 2 - (count - 2) // 256
    message = bytes([_FILLER_MESSAGE]) + b"\xff" * (size // 255) + bytes([size % 255]) + b"\xff" * size
    return message if len(message) == count else bytes([_FILLER_MESSAGE, 0]) + _filler(count - 2)


def _messages(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and bytes of each message (H.264, 7.3.2.3.1); one that is cut off is left out."""
    at = 0
    while at + 2 < len(content):
        start, numbers = at, []
        for _ in range(2):
            number = 0
            while at < len(content) and content[at] == 0xFF:
                number, at = number + 0xFF, at + 1
            number, at = number + (content[at] if at < len(content) else 0), at + 1
            numbers.append(number)
        at += numbers[1]
        if at < len(content):
            yield numbers[0], content[start:at]
