"""Decoding through the child: every format, every coded error, and no process left behind."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.utils.media.conftest import children_of, is_gone, wait_until
from utils.config import MediaSettings, SandboxSettings
from utils.errors import (
    DecoderCrashedError,
    DecoderLimitError,
    MediaCorruptError,
    MediaDimensionsError,
    MediaError,
    MediaTooLargeError,
    MediaTooLongError,
    NotFoundError,
)
from utils.media import decode_media, sandbox
from utils.media.fork_server import ForkServer
from utils.media.images import decode_image, decode_moving
from utils.media.limits import MediaLimits
from utils.media.video import decode_video
from utils.types import Media, MediaKind

MEDIA, SANDBOX = MediaSettings(), SandboxSettings()
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and process groups")


@pytest.fixture(scope="module")
def decoders() -> Iterator[ForkServer | None]:
    """Where the children come from that are not spawned; the worker takes its own from there."""
    made = sandbox.start_fork_server()
    if made is not None:
        made.warm()
    yield made
    if made is not None:
        made.close()


@pytest.fixture
def decode(tmp_path: Path) -> Callable[..., Media]:
    def run(
        data: bytes,
        media: MediaSettings = MEDIA,
        limits: SandboxSettings = SANDBOX,
        name: str = "x",
        decoders: ForkServer | None = None,
    ) -> Media:
        (tmp_path / name).write_bytes(data)
        return decode_media(tmp_path / name, media, limits, decoders)

    return run


def saved(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    noise = np.random.default_rng(5).integers(0, 256, (90, 120, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(out, kind, **options)
    return out.getvalue()


def oriented() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


PICTURES = {
    "jpeg": saved("JPEG"),
    "jpeg turned": saved("JPEG", exif=oriented()),
    "jpeg cmyk": saved("JPEG", "CMYK"),
    "jpeg several": saved("MPO", save_all=True, append_images=[Image.new("RGB", (120, 90))]),
    "jpeg progressive": saved("JPEG", progressive=True),
    "jpeg cut": saved("JPEG")[:4000],
    "png": saved("PNG"),
    "png turned": saved("PNG", exif=oriented()),
    "png palette": saved("PNG", "P", transparency=3),
    "webp": saved("WEBP"),
    "webp turned": saved("WEBP", "RGBA", exif=oriented()),
    "avif": saved("AVIF"),
    "gif": saved("GIF", "P"),
    "bmp": saved("BMP"),
    "tiff lzw": saved("TIFF", compression="tiff_lzw"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_come_out_as_without_the_child(
    name: str, decode: Callable[..., Media], decoders: ForkServer | None
) -> None:
    data = PICTURES[name]
    media = decode(data, decoders=decoders)
    frame, facts = decode_image(data, MediaLimits())
    assert (media.frames[0].pixels == frame.pixels).all()
    assert media.notices == facts.as_notices()
    assert (media.info.kind, media.info.format) == (MediaKind.IMAGE, name.split()[0])
    assert (media.info.width, media.info.height) == ((90, 120) if "turned" in name else (120, 90))
    assert (media.info.size_bytes, media.info.sha256) == (len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "AVIF"])
def test_moving_pictures_come_out_as_clips(
    kind: str, decode: Callable[..., Media], decoders: ForkServer | None
) -> None:
    data = saved(kind, save_all=True, append_images=[Image.new("RGB", (120, 90))], duration=200)
    media = decode(data, decoders=decoders)
    frames, facts = decode_moving(io.BytesIO(data), 16, MediaLimits())
    assert (media.info.kind, media.info.format, media.info.duration_s) == (MediaKind.VIDEO, kind.lower(), 0.4)
    assert (media.info.fps, media.info.codec) == (facts.fps, facts.codec)
    for inside, outside in zip(media.frames, frames, strict=True):
        assert inside.time_s == outside.time_s
        assert (inside.pixels == outside.pixels).all()


def test_a_jpeg_beyond_the_limit_comes_at_half_its_size(decode: Callable[..., Media]) -> None:
    media = decode(saved("JPEG"), media=MediaSettings(max_megapixels=0.005))
    assert (media.info.width, media.info.height, media.frames[0].pixels.shape) == (120, 90, (45, 60, 3))
    assert [notice.code for notice in media.notices] == ["reduced"]


@pytest.mark.parametrize("name", ["mp4", "mov", "matroska", "webm", "avi", "flv", "mpegts", "asf", "ogg"])
def test_videos_come_out_as_without_the_child(
    name: str, clips: dict[str, bytes], decode: Callable[..., Media], decoders: ForkServer | None
) -> None:
    media = decode(clips[name], decoders=decoders)
    frames, facts = decode_video(io.BytesIO(clips[name]), MEDIA.frames, MediaLimits())
    assert len(media.frames) == len(frames) == 16
    for inside, outside in zip(media.frames, frames, strict=True):
        assert (inside.index, inside.time_s) == (outside.index, outside.time_s)
        assert (inside.pixels == outside.pixels).all()
    info = media.info
    assert (info.kind, info.format, info.codec) == (MediaKind.VIDEO, name, facts.codec)
    assert (info.duration_s, info.fps) == (facts.duration_s, facts.fps)


def test_a_video_with_sound_and_other_modern_codecs(
    encode_clip: Callable[..., bytes], decode: Callable[..., Media]
) -> None:
    assert len(decode(encode_clip("mp4", "libx264", count=5, sound=True)).frames) == 5
    assert decode(encode_clip("webm", "libvpx-vp9", count=5, sound=True)).info.codec == "vp9"
    assert decode(encode_clip("mp4", "libsvtav1", count=5)).info.codec == "av1"


def test_mov_without_ftyp(clips: dict[str, bytes], decode: Callable[..., Media]) -> None:
    data = clips["mov"].replace(b"ftyp", b"free", 1)
    assert decode(data).info.format == "mov"


def test_a_video_named_like_a_picture_is_a_video(clips: dict[str, bytes], decode: Callable[..., Media]) -> None:
    assert decode(clips["webm"], name="photo.jpg").info.kind is MediaKind.VIDEO


def test_errors_of_the_child_keep_their_code(clips: dict[str, bytes], decode: Callable[..., Media]) -> None:
    with pytest.raises(MediaCorruptError):
        decode(PICTURES["png"][:40])
    with pytest.raises(MediaDimensionsError):
        decode(PICTURES["png"], MediaSettings(min_side_px=91))
    with pytest.raises(MediaTooLongError):
        decode(clips["mp4"], MediaSettings(max_duration_s=2.0))
    with pytest.raises(MediaCorruptError):
        decode(clips["mp4"][:2000])


def test_files_that_cannot_be_read(tmp_path: Path, decode: Callable[..., Media]) -> None:
    with pytest.raises(NotFoundError):
        decode_media(tmp_path / "missing.jpg", MEDIA, SANDBOX)
    folder = tmp_path / "x-folder"
    folder.mkdir()
    with pytest.raises(MediaError, match="x-folder is not a file"):
        decode_media(folder, MEDIA, SANDBOX)
    with pytest.raises(MediaTooLargeError):
        decode(bytes(1_000_001), MediaSettings(max_file_mb=1))


@posix
def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(MediaError, match="not a file"):
        decode_media(tmp_path / "pipe.jpg", MEDIA, SANDBOX)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces the limit of memory")
def test_too_little_memory_is_a_limit_and_no_crash(decode: Callable[..., Media]) -> None:
    out = io.BytesIO()
    Image.new("L", (7000, 7000)).save(out, "PNG", compress_level=1)
    with pytest.raises(DecoderLimitError, match="450 MB"):
        decode(out.getvalue(), limits=SandboxSettings(memory_mb=450))


# From here on children that misbehave stand in for the real one.


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-c", "import os, sys, time\n" + code]


@pytest.fixture
def misbehave(monkeypatch: pytest.MonkeyPatch, decode: Callable[..., Media]) -> Callable[..., Media]:
    def run(command: list[str], wall_s: float = 20.0) -> Media:
        monkeypatch.setattr(sandbox, "child_command", lambda request: command)
        return decode(PICTURES["png"], limits=SandboxSettings(wall_s=wall_s))

    return run


@posix
def test_a_hanging_child_and_its_children_are_killed(tmp_path: Path, misbehave: Callable[..., Media]) -> None:
    pids = tmp_path / "pids"
    code = f"""
child = os.fork()
with open({str(pids)!r}, "a") as out:
    out.write(f"{{os.getpid()}}\\n")
time.sleep(300)
"""
    started = time.monotonic()
    with pytest.raises(DecoderLimitError, match=r"longer than 1\.5 seconds"):
        misbehave(python(code), wall_s=1.5)
    assert time.monotonic() - started < 60
    left = [int(pid) for pid in pids.read_text().split()]
    assert len(left) == 2
    wait_until(lambda: all(map(is_gone, left)))


@posix
def test_a_signal_just_before_the_deadline_does_not_move_it(misbehave: Callable[..., Media]) -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: time.sleep(0.4))
    signal.setitimer(signal.ITIMER_REAL, 0.8)
    try:
        with pytest.raises(DecoderLimitError):
            misbehave(python("time.sleep(20)"), wall_s=1.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@posix
@pytest.mark.parametrize(("size_mb", "gets_s"), [(0, 0.4), (1, 1.2)])
def test_a_small_video_gets_little_time(
    size_mb: int, gets_s: float, decode: Callable[..., Media], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[str] = []
    monkeypatch.setattr(sandbox, "VIDEO_S", 0.4)
    monkeypatch.setattr(sandbox, "VIDEO_S_PER_MB", 0.8)
    monkeypatch.setattr(sandbox, "child_command", lambda request: requests.append(request) or python("time.sleep(300)"))
    film = b"\0\0\0\x10ftypisom\0\0\0\0" + bytes(size_mb * 1_000_000 - 16 * bool(size_mb))
    with pytest.raises(DecoderLimitError, match=rf"longer than {gets_s:.1f}"):
        decode(film)
    assert json.loads(requests[0])["cpu_s"] == (1 if size_mb == 0 else 2)


@posix
@pytest.mark.parametrize(
    ("code", "error", "says"),
    [
        ("os.kill(os.getpid(), 11)", DecoderCrashedError, "SIGSEGV"),
        ("os.kill(os.getpid(), 6)", DecoderCrashedError, "SIGABRT"),
        ("os.kill(os.getpid(), 9)", DecoderLimitError, "killed by the system"),
        ("sys.exit(3)", DecoderCrashedError, "status 3"),
        ("os.write(1, b'TTMEDIA1'); sys.exit(0)", DecoderCrashedError, "status 0"),
        ("os.write(1, b'x' * 60000)", DecoderCrashedError, "breaks the rules"),
        ("os.write(1, b'TTMEDIA1' + b'\\xff' * 4); time.sleep(60)", DecoderCrashedError, "header of"),
    ],
)
def test_crashes_and_nonsense(code: str, error: type[MediaError], says: str, misbehave: Callable[..., Media]) -> None:
    with pytest.raises(error, match=says):
        misbehave(python(code))


@posix
def test_processor_time_is_limited(misbehave: Callable[..., Media]) -> None:
    code = f"""
sys.path.insert(0, {str(sandbox.ROOT)!r})
from utils.media.sandbox_limits import confine
confine(2 * 10**9, 1)
while True: pass
"""
    with pytest.raises(DecoderLimitError, match="processor time"):
        misbehave(python(code))


def test_a_program_that_is_not_there(misbehave: Callable[..., Media], tmp_path: Path) -> None:
    with pytest.raises(DecoderCrashedError, match="cannot be started"):
        misbehave([str(tmp_path / "nothing")])


@posix
def test_the_child_sees_no_secrets(misbehave: Callable[..., Media], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELLTALE_STORAGE__DATABASE_URL", "postgresql://user:word@host/db")
    with pytest.raises(DecoderCrashedError, match="status 7"):
        misbehave(python("sys.exit(7 if not any(k.startswith('TELLTALE') for k in os.environ) else 8)"))


@pytest.fixture(autouse=True)
def _no_child_left() -> Iterator[None]:
    before = set(children_of())  # other tests of the session may keep a browser
    yield
    assert set(children_of()) <= before


def test_the_level_is_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level("INFO")
    sandbox.sandbox_level.cache_clear()
    level = sandbox.sandbox_level()
    assert f"confined by: {', '.join(level)}" in caplog.text
    monkeypatch.setattr(sandbox, "PROTECTIONS", (*level, "no_gravity"))
    sandbox.sandbox_level.cache_clear()
    sandbox.sandbox_level()
    assert "refuses the decoding child: no_gravity" in caplog.text


@posix
def test_a_picture_gets_less_time_than_a_video(
    misbehave: Callable[..., Media], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "PICTURE_WALL_S", 0.4)
    with pytest.raises(DecoderLimitError, match=r"longer than 0\.4 seconds"):
        misbehave(python("time.sleep(300)"), wall_s=90.0)
