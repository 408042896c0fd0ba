"""Films that say where they were made, in each way that their containers and codecs know."""

from __future__ import annotations

import hashlib
import io
import os
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

SECRET = b"48.8584 N 2.2945 E"
KINDS: dict[str, tuple[str, str, str, dict[str, str]]] = {
    "MP4 H.264": ("mp4", "libx264", "aac", {"movflags": "use_metadata_tags"}),
    "MP4 H.265": ("mp4", "libx265", "aac", {}),
    "MP4 AV1": ("mp4", "libsvtav1", "aac", {}),
    "MP4 in fragments": ("mp4", "libx264", "aac", {"movflags": "frag_keyframe+empty_moov+use_metadata_tags"}),
    "3GP": ("3gp", "h263", "aac", {}),
    "MOV MPEG-4": ("mov", "mpeg4", "pcm_s16le", {}),
    "MOV H.264": ("mov", "libx264", "pcm_s16le", {}),
    "MOV ProRes": ("mov", "prores_ks", "pcm_s16le", {}),
    "Matroska H.264": ("matroska", "libx264", "libopus", {}),
    "Matroska MPEG-2": ("matroska", "mpeg2video", "ac3", {}),
    "WebM VP8": ("webm", "libvpx", "libopus", {}),
    "WebM VP9 live": ("webm", "libvpx-vp9", "libopus", {"live": "1"}),
    "AVI MPEG-4": ("avi", "mpeg4", "pcm_s16le", {}),
    "AVI Motion JPEG": ("avi", "mjpeg", "mp2", {}),
    "AVI raw": ("avi", "rawvideo", "pcm_s16le", {}),
    "AVI H.264": ("avi", "libx264", "libmp3lame", {}),
    "FLV Sorenson": ("flv", "flv", "libmp3lame", {}),
    "FLV H.264": ("flv", "libx264", "aac", {}),
    "FLV H.265": ("flv", "libx265", "aac", {}),
    "TS H.264": ("mpegts", "libx264", "aac", {}),
    "OGV VP8": ("ogg", "libvpx", "libopus", {}),
}
_PIXELS = {"prores_ks": "yuv422p10le", "mjpeg": "yuvj420p", "cinepak": "rgb24"}
_OPTIONS = {"libx265": {"x265-params": "log-level=none"}, "libsvtav1": {"svtav1-params": "lp=1", "preset": "12"}}
_SIZES = {"h263": (128, 96)}


def add_video(sink: Any, codec: str, rate: int = 10, **options: str) -> Any:
    stream = sink.add_stream(codec, rate=rate, options=_OPTIONS.get(codec, {}) | options)
    stream.width, stream.height = _SIZES.get(codec, (96, 64))
    stream.pix_fmt = _PIXELS.get(codec, "yuv420p")
    return stream


def noise(stream: Any, count: int) -> list[Any]:
    """The packets of so many noisy frames, the last ones included."""
    packets = []
    for index in range(count):
        shape = (stream.height, stream.width, 3)
        frame = av.VideoFrame.from_ndarray(np.random.default_rng(index).integers(0, 255, shape, np.uint8))
        frame.pts, frame.time_base = index, 1 / Fraction(stream.average_rate)
        packets += stream.encode(frame)
    packets += stream.encode(None)
    calm()
    return packets


def calm() -> None:
    """Take back the priority that SVT-AV1 gives a thread of root: it, and whatever it starts later, goes before all."""
    if hasattr(os, "sched_setscheduler"):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def tone(stream: Any) -> list[Any]:
    """The packets of two seconds of sound."""
    wave = (np.sin(np.arange(stream.rate * 2) / 20) * 15_000).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(wave[None], "s16", "mono")
    frame.sample_rate = stream.rate
    resampler = av.AudioResampler(format=stream.format.name, layout="mono", rate=stream.rate)
    return [packet for part in resampler.resample(frame) for packet in stream.encode(part)] + stream.encode(None)


def told(kind: str) -> bytes:
    """A film with sound that says where it was made, in its tags and in the names of its tracks."""
    muxer, codec, sound, options = KINDS[kind]
    out = io.BytesIO()
    with av.open(out, "w", format=muxer, container_options=options) as sink:
        for tag in ("title", "comment", "location", "artist"):
            sink.metadata[tag] = SECRET.decode()
        sink.metadata["creation_time"] = "2024-02-29T12:00:00"
        video = add_video(sink, codec)
        video.metadata["title"] = video.metadata["handler_name"] = SECRET.decode()
        audio = sink.add_stream(sound, rate=44100 if muxer == "flv" else 48000, layout="mono")
        for packet in noise(video, 20) + tone(audio):
            sink.mux(packet)
    return out.getvalue()


def film(muxer: str, codec: str, count: int = 40, **options: str) -> bytes:
    """A film without sound; keywords go to the encoder."""
    out = io.BytesIO()
    with av.open(out, "w", format=muxer) as sink:
        for packet in noise(add_video(sink, codec, **options), count):
            sink.mux(packet)
    return out.getvalue()


def remuxed(data: bytes, muxer: str, first_key: int = 0, earlier_s: Fraction = Fraction(0)) -> bytes:
    """A film from a key frame on, with all times so much earlier; what comes to lie before 0 is hidden."""
    out, keys = io.BytesIO(), -1
    with av.open(io.BytesIO(data)) as source, av.open(out, "w", format=muxer) as sink:
        target = sink.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            keys += packet.is_keyframe
            if packet.dts is None or keys < first_key:
                continue
            packet.pts -= int(earlier_s / packet.time_base)
            packet.dts -= int(earlier_s / packet.time_base)
            packet.stream = target
            sink.mux(packet)
    return out.getvalue()


def with_text_track(muxer: str) -> bytes:
    """A film with a second track of text, as drones and dashboard cameras write it."""
    header = (
        b"[Script Info]\nScriptType: v4.00+\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize, PrimaryColour\n"
        b"Style: Default,Arial,16,&Hffffff\n[Events]\nFormat: Layer, Start, End, Style, Text\n"
    )
    out = io.BytesIO()
    with av.open(out, "w", format=muxer) as sink:
        video = add_video(sink, "mpeg4")
        text = sink.add_stream("subrip" if muxer == "matroska" else "mov_text")
        text.codec_context.subtitle_header = b"" if muxer == "matroska" else header
        for index, packet in enumerate(noise(video, 10)):
            sink.mux(packet)
            if index in (2, 6):
                said = av.Packet(SECRET if muxer == "matroska" else struct.pack(">H", len(SECRET)) + SECRET)
                said.stream, said.pts, said.dts, said.duration = text, index * 100, index * 100, 100
                said.time_base = text.time_base
                sink.mux(said)
    return out.getvalue()


def decoded(data: bytes) -> list[tuple[str, float, str]]:
    """Every frame and every portion of samples: its kind, time in seconds and hash, in order of kind and time."""
    with av.open(io.BytesIO(data)) as source:
        heard = [stream for stream in source.streams if stream.type in ("video", "audio")]
        return sorted(
            (
                type(frame).__name__,
                round(float(frame.time or 0), 3),
                hashlib.sha256(frame.to_ndarray().tobytes()).hexdigest(),
            )
            for frame in source.decode(*heard)
        )


def tags(data: bytes) -> set[str]:
    """All texts that a film says of itself."""
    with av.open(io.BytesIO(data)) as source:
        return {value for holder in (source, *source.streams) for value in holder.metadata.values()}


def write_clip(path: Path, frames: list[Any], rate: int = 10, codec: str = "mpeg4", **options: str) -> None:
    """A plain clip of pictures of one size, with even sides; keywords go to the encoder."""
    with av.open(str(path), "w") as sink:
        stream: Any = sink.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 0 if "crf" in options else 2_000_000
        for frame in frames:
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        sink.mux(stream.encode(None))
