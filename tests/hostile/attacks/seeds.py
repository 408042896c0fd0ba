"""Small healthy pictures, clips and recordings of every format, drawn here: what the mutations start from."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np
from PIL import Image

from tests.utils.media.heics import Heic, heic

CLIPS = {
    "mp4": ("mp4", "libx264"),
    "mov": ("mov", "mpeg4"),
    "matroska": ("matroska", "libx264"),
    "webm": ("webm", "libvpx"),
    "avi": ("avi", "mpeg4"),
    "flv": ("flv", "flv"),
    "mpegts": ("mpegts", "libx264"),
    "mpeg": ("mpeg", "mpeg2video"),
    "mpegvideo": ("mpeg1video", "mpeg1video"),
    "asf": ("asf", "wmv2"),
    "ogg": ("ogg", "libvpx"),
}
"""Our name of the container, FFmpeg's muxer, and an encoder that fits."""


RECORDINGS = {
    "wav": ("wav", "pcm_s16le", 22050),
    "flac": ("flac", "flac", 44100),
    "mp3": ("mp3", "libmp3lame", 44100),
    "m4a": ("ipod", "aac", 48000),
    "aac": ("adts", "aac", 44100),
    "oga": ("ogg", "libopus", 48000),
    "wma": ("asf", "wmav2", 44100),
    "amr": ("amr", "libopencore_amrnb", 8000),
    "oga-vorbis": ("ogg", "vorbis", 44100),
    "m4a-alac": ("ipod", "alac", 44100),
    "wav-mulaw": ("wav", "pcm_mulaw", 8000),
    "wav-float": ("wav", "pcm_f32le", 16000),
    "wav-adpcm": ("wav", "adpcm_ms", 22050),
    "webm-alone": ("webm", "libopus", 48000),
    "mp4-alone": ("mp4", "aac", 48000),
    "3gp-alone": ("3gp", "libopencore_amrnb", 8000),
}
"""What a recording is: FFmpeg's muxer, an encoder and a sampling rate; up to a dash, our name of the format."""

PITCH_HZ = 440.0


def chord(rate: int, seconds: float = 2.0) -> np.ndarray:
    """A tone of `PITCH_HZ` that swells and fades, (n,) float32."""
    at = np.arange(round(rate * seconds)) / rate
    return (0.5 * np.sin(2 * np.pi * PITCH_HZ * at) * np.sin(np.pi * at / seconds)).astype(np.float32)


def recording(
    name: str, samples: np.ndarray | None = None, *, layout: str = "mono", tags: dict[str, str] | None = None
) -> bytes:
    """A recording of `RECORDINGS`: of the samples, or of a chord."""
    muxer, encoder, rate = RECORDINGS[name]
    layout = "stereo" if encoder == "vorbis" else layout  # its encoder knows no other
    wave = chord(rate) if samples is None else samples
    out = io.BytesIO()
    with av.open(out, "w", format=muxer) as sink:
        sink.metadata.update(tags or {})
        stream = sink.add_stream(encoder, rate=rate, layout=layout)
        stream.bit_rate = 12_200 if muxer in ("amr", "3gp") else 64_000
        if encoder == "vorbis":
            stream.options = {"strict": "experimental"}
        channels = 1 if layout == "mono" else 2
        frame = av.AudioFrame.from_ndarray(np.tile(wave, (channels, 1)), format="fltp", layout=layout)
        frame.sample_rate = rate
        resampler = av.AudioResampler(stream.format.name, layout, rate, stream.codec_context.frame_size or None)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            sink.mux(stream.encode(part))
        sink.mux(stream.encode(None))
    return out.getvalue()


def recordings() -> dict[str, bytes]:
    """A recording of each kind."""
    return {name: recording(name) for name in RECORDINGS}


def drawing(width: int = 96, height: int = 64, shift: int = 0) -> Image.Image:
    """A picture with gradients, edges and noise."""
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(shift).integers(0, 24, (height, width))
    planes = ((x * 2 + shift * 9) % 256, (y * 3) % 200 + noise, ((x + y + shift * 5) // 8 % 2) * 200)
    return Image.fromarray(np.stack(planes, axis=2).astype(np.uint8))


def save(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    """A drawing as a file."""
    out = io.BytesIO()
    drawing().convert(mode).save(out, kind, **options)
    return out.getvalue()


def pictures() -> dict[str, bytes]:
    """Pictures by name, each variant with another path through a decoder."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    more = [drawing(shift=n) for n in range(1, 4)]
    rich: dict[str, Any] = {"exif": exif, "icc_profile": bytes(700), "xmp": b"<x:xmpmeta/>"}
    return {
        "jpeg": save("JPEG"),
        "jpeg-rich": save("JPEG", **rich),
        "jpeg-progressive": save("JPEG", progressive=True),
        "jpeg-cmyk": save("JPEG", "CMYK"),
        "jpeg-grey": save("JPEG", "L"),
        "jpeg-mpo": save("MPO", save_all=True, append_images=more),
        "png": save("PNG"),
        "png-rich": save("PNG", exif=exif, icc_profile=bytes(700)),
        "png-palette": save("PNG", "P", transparency=3),
        "png-16": save("PNG", "I;16"),
        "png-1": save("PNG", "1"),
        "apng": save("PNG", save_all=True, append_images=more),
        "webp": save("WEBP"),
        "webp-lossless": save("WEBP", "RGBA", lossless=True),
        "webp-rich": save("WEBP", exif=exif, icc_profile=bytes(700)),
        "webp-animated": save("WEBP", save_all=True, append_images=more),
        "heic": heic(np.asarray(drawing()), (b"irot", b"\1")),
        "heic-grid": _grid(),
        "avif": save("AVIF"),
        "avif-alpha": save("AVIF", "RGBA", exif=exif),
        "avif-animated": save("AVIF", save_all=True, append_images=more),
        "gif": save("GIF", "P"),
        "gif-animated": save("GIF", save_all=True, append_images=more, duration=100),
        "bmp": save("BMP"),
        "bmp-palette": save("BMP", "P"),
        "tiff": save("TIFF", exif=exif),
        "tiff-lzw": save("TIFF", compression="tiff_lzw"),
        "tiff-jpeg": save("TIFF", compression="jpeg"),
        "tiff-pages": save("TIFF", save_all=True, append_images=[one.copy() for one in more]),
    }


def _grid() -> bytes:
    file = Heic()
    return file.save(file.grid(np.asarray(drawing()), 64, (b"clap", bytes(32))))


def clip(name: str, count: int = 10) -> bytes:
    """A clip of one second in a container of `CLIPS`."""
    muxer, encoder = CLIPS[name]
    out = io.BytesIO()
    with av.open(out, "w", format=muxer) as sink:
        stream = sink.add_stream(encoder, rate=25 if encoder.startswith("mpeg") else 10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(count):
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(drawing(shift=index)))))
        sink.mux(stream.encode(None))
    return out.getvalue()


def clips() -> dict[str, bytes]:
    """A clip of each container."""
    return {name: clip(name) for name in CLIPS}
