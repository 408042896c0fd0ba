"""The readers that are fuzzed: each takes bytes and may raise what its documentation names, no other."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from werkzeug.datastructures import Headers

from tests.hostile.attacks import seeds
from utils.config import load_settings
from utils.detection.cli import FileResult, format_csv, format_json, format_json_line, format_table
from utils.errors import BadRequestError, ConfigError, MediaError, TelltaleError
from utils.evidence.answer import to_provenance
from utils.feedback.feedback_log import read_feedback_log
from utils.media import audio
from utils.media.child_protocol import (
    MAX_HEADER_BYTES,
    BrokenAnswerError,
    CopyWriter,
    Expected,
    read_answer,
    read_copy,
    read_level,
    write_error,
    write_facts,
    write_frame,
    write_header,
    write_samples,
)
from utils.media.clean_film import UserDataFilter, copy_film
from utils.media.clean_picture import strip
from utils.media.headers import edit_count, is_truncated, read_header
from utils.media.limits import Facts, MediaLimits
from utils.media.sniff import FORMATS, sniff
from utils.types import SAMPLE_RATE, Frame, MediaKind, SoundInfo
from web_app.storage.upload import display_name

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL = MediaLimits(max_megapixels=0.1, min_side_px=8, max_duration_s=60.0)


@dataclass(frozen=True)
class Target:
    """One reader.

    Args:
        run: gives it bytes; returns where it answered as it should, raises where it did not.
        seeds: makes healthy inputs to start from.
    """

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


class Disk(io.BytesIO):
    """Bytes that refuse the places that a file on a disk does."""

    def seek(self, offset: int, whence: int = 0) -> int:
        """See `io.BytesIO.seek`."""
        if not 0 <= offset < 1 << 43:  # ext4 holds 16 TiB
            raise OSError(22, "Invalid argument")
        return super().seek(offset, whence)


def sniffing(data: bytes) -> None:
    """Format, header, edit list and ending of a file, each for every format."""
    try:
        found = sniff(data)
        assert FORMATS[found.name] is found
    except MediaError as error:
        assert error.code in ("unsupported_media", "bad_request")  # noqa: PT017 - no test
    for name in FORMATS:
        header = read_header(Disk(data), name)
        assert header.frames >= 1
        assert isinstance(is_truncated(Disk(data), name), bool)
    assert edit_count(Disk(data)) >= 0


def pictures(data: bytes) -> None:
    """A picture or a clip in a picture's format, by the decoders themselves."""
    from utils.media.images import decode_moving

    with contextlib.suppress(MediaError):
        frames, facts = decode_moving(Disk(data), 4, SMALL)
        assert 1 <= len(frames) <= 4
        assert facts.duration_s is not None or len(frames) == 1


def clean_picture(data: bytes) -> None:
    """A picture without its metadata: no longer than it was, but for an orientation of our own."""
    for name in ("jpeg", "png", "webp"):
        try:
            assert len(strip(data, name, MediaLimits())) <= len(data) + 64
        except MediaError:
            continue


def user_data(data: bytes) -> None:
    """A packet and a configuration of H.264 or H.265, with lengths and with start codes."""
    for is_hevc in (False, True):
        for configuration in (b"", data[:64]):
            units = UserDataFilter(configuration, is_hevc=is_hevc)
            with contextlib.suppress(ValueError, IndexError):
                assert len(units.packet(data)) == len(data)
            with contextlib.suppress(ValueError, IndexError):
                assert len(units.configuration(data)) <= len(data)


def child_protocol(data: bytes) -> None:
    """What a decoding child says, as picture, video and level."""
    for kind, frames, moves in ((MediaKind.IMAGE, 1, False), (MediaKind.IMAGE, 4, True), (MediaKind.VIDEO, 4, False)):
        try:
            answered, facts = read_answer(io.BytesIO(data), Expected(kind, frames, SMALL, moves))
        except (MediaError, BrokenAnswerError):
            continue
        assert bool(facts.width) <= len(answered) <= frames
        assert facts.width * facts.height <= 4 * SMALL.max_pixels  # a JPEG at half its size
        assert all(frame.pixels.size <= 3 * SMALL.max_pixels for frame in answered)
        assert answered or facts.samples is not None
        assert facts.samples is None or np.abs(facts.samples).max() <= 1
    target = io.BytesIO()
    with contextlib.suppress(MediaError, BrokenAnswerError):
        read_copy(io.BytesIO(data), target, 1000)
    assert len(target.getvalue()) <= 1000
    try:
        assert all(isinstance(name, str) for name in read_level(io.BytesIO(data)))
    except (MediaError, BrokenAnswerError):
        return


@functools.cache
def _scratch() -> Path:
    folder = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())  # noqa: S108
    return Path(tempfile.mkdtemp(prefix="telltale-fuzz-", dir=folder))


def feedback_reader(data: bytes) -> None:
    """A feedback log with any content."""
    path = _scratch() / "feedback.jsonl"
    path.write_bytes(data)
    log = read_feedback_log(path)
    for entry in log.entries:
        assert b"\n" not in entry.to_line()[:-1]


def config_reader(data: bytes) -> None:
    """A configuration file with any content, and the environment with the same values."""
    path = _scratch() / "config.ini"
    path.write_bytes(data)
    environ = {}
    for line in data.decode("utf-8", "replace").splitlines()[:20]:
        key, _, value = line.partition("=")
        environ[f"TELLTALE_SERVER__{key.strip().upper()}"] = value
    for source, variables in ((path, {}), (None, environ)):
        try:
            settings = load_settings(source, variables)
        except ConfigError as error:
            assert str(error)  # noqa: PT017 - no test
        else:
            assert all(dataclasses.is_dataclass(getattr(settings, f.name)) for f in dataclasses.fields(settings))


@functools.cache
def _app() -> Any:
    from flask import Flask

    return Flask("telltale", root_path=str(ROOT / "web_app"))


def report_renderer(data: bytes) -> None:
    """A report whose texts come from the bytes, in every form that people get: HTML, CSV, JSON, table."""
    from web_app.reports.printed import render_html

    text = data.decode("utf-8", "surrogateescape")
    texts = [part[:200] for part in (text.split("|") + [""] * 6)[:6]]
    document = _document(texts, data)
    with _app().test_request_context():
        page = render_html(document, None, "http://localhost/")
    clean = "".join(texts)
    if "<" in clean:
        assert not any(f"<{tag}" in page.lower() for tag in ("script", "iframe", "object", "embed"))
    name = Path(texts[0].replace("\0", "") or "x")
    results = [FileResult(name, None, TelltaleError(texts[1]), 1.0)]
    for form in (format_table, format_csv, format_json):
        form(results).encode("utf-8")
    format_json_line(results[0]).encode("utf-8")
    shown = display_name(texts[2])
    assert shown
    assert all(character.isprintable() for character in shown)
    Headers().add("X-Name", shown.encode("ascii", "replace").decode())


def _document(texts: list[str], data: bytes) -> dict[str, Any]:
    from tests.web_app.helpers import make_report
    from utils.signatures import sign
    from utils.types import Outcome
    from web_app.reports.document import build_document

    outcome = list(Outcome)[len(data) % len(Outcome)]
    analysis = {"id": "0" * 32, **make_report(outcome=outcome).to_dict()}
    analysis["verdict"]["headline"] = texts[3]
    analysis["notices"] = [{"code": texts[4], "text": texts[5]}]
    for face in analysis["faces"]:
        face["verdict"]["headline"] = texts[3]
        face["experts"][0]["title"] = texts[4]
    document = build_document(analysis, display_name(texts[0]), "2026-01-01T00:00:00+00:00")
    text = json.dumps(document, ensure_ascii=False)  # the analysis itself makes no broken text
    return sign(json.loads(text.encode("utf-8", "replace")), bytes(32))


def upload_body(data: bytes) -> None:
    """A request's multipart body, without a server around it."""
    from flask import Request
    from werkzeug.test import EnvironBuilder

    from web_app.storage.files import MediaStore
    from web_app.storage.upload import receive_upload

    folder = _scratch() / "uploads"
    folder.mkdir(exist_ok=True)
    builder = EnvironBuilder(method="POST", data=data, content_type="multipart/form-data; boundary=b")
    try:
        upload = receive_upload(Request(builder.get_environ()), MediaStore(folder, 100_000), None)
    except (BadRequestError, MediaError) as error:
        assert error.status in (400, 413, 415)  # noqa: PT017 - no test
    else:
        MediaStore(folder, 100_000).remove(upload.file.name)
    finally:
        builder.close()
    assert not list(folder.glob("*.part"))


# Seeds


def _media_seeds() -> list[bytes]:
    return [data[:4096] for data in (*seeds.pictures().values(), *seeds.clips().values(), *seeds.recordings().values())]


def _answers() -> list[bytes]:
    pixels = np.zeros((16, 24, 3), np.uint8)
    outs = [io.BytesIO() for _ in range(4)]
    write_frame(outs[0], Frame(0, 0.0, pixels))
    write_facts(outs[0], Facts(24, 16))
    write_frame(outs[1], Frame(0, 0.0, pixels))
    write_frame(outs[1], Frame(1, 0.5, pixels))
    write_facts(outs[1], Facts(24, 16, 1.0, 2.0, "h264", ("truncated",)))
    write_error(outs[2], TelltaleError("nothing"))
    write_samples(outs[3], np.zeros(400, np.float32))
    sound = SoundInfo(codec="mp3", rate_hz=44100, channels=2, duration_s=0.025)
    write_facts(outs[3], Facts(0, 0, 0.025, None, "mp3", (), sound=sound))
    copy = io.BytesIO()
    writer = CopyWriter(copy)
    writer.write(b"a film")
    writer.finish()
    outs.append(copy)
    level = json.dumps({"level": ["no_network"]}).encode()
    return [*(out.getvalue() for out in outs), b"TTMEDIA1" + len(level).to_bytes(4, "little") + level]


def _feedback_lines() -> list[bytes]:
    entry = {
        "schema_version": 1, "time": "2026-01-01T00:00:00+00:00", "detection_id": "0" * 32, "client_id": "c",
        "media_sha256": "0" * 64, "model_version": "v", "prediction": "fake", "fake_probability": 0.9,
        "judgement": "incorrect", "actual": "real", "category": "false_alarm", "note": None,
    }  # fmt: skip
    line = json.dumps(entry).encode()
    return [line + b"\n", line + b"\n" + line[:40] + b"\n" + line + b"\n"]


def _bodies() -> list[bytes]:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="photo.png"\r\n\r\n'
    picture = seeds.save("PNG")[:600]
    return [head + picture + b"\r\n--b--\r\n", head.replace(b"file", b"other", 1) + b"x\r\n" + head + picture]


def sound(data: bytes) -> None:
    """A recording of any kind through its decoder, and its copy without metadata."""
    try:
        container = sniff(data)
    except MediaError:
        return
    if container.kind is not MediaKind.AUDIO:
        return
    heard: list[Any] = []
    with contextlib.suppress(MediaError):
        facts = audio.decode_recording(Disk(data), container, SMALL, heard.append)
        assert sum(map(len, heard)) == round((facts.duration_s or 0) * SAMPLE_RATE)
    assert sum(map(len, heard)) <= 61 * SAMPLE_RATE
    with contextlib.suppress(MediaError):
        copy_film(Disk(data), container, SMALL, io.BytesIO())


def evidence(data: bytes) -> None:
    """What a file says of itself, by the libraries themselves: an answer that the parent takes, whatever the file."""
    for name, mime in (("jpeg", "image/jpeg"), ("png", "image/png"), ("webp", "image/webp"), ("heic", "image/heic")):
        told = _evidence_reader().read(Disk(data), name, mime, list)
        write_header(sent := io.BytesIO(), {"evidence": told})
        assert len(sent.getvalue()) < MAX_HEADER_BYTES
        assert to_provenance(told).credentials.text


@functools.cache
def _evidence_reader() -> Any:
    from utils.evidence.reading import EvidenceReader

    return EvidenceReader("")


def _signed() -> list[bytes]:
    from PIL import PngImagePlugin

    from tests.utils.evidence.signing import MODEL, created, picture, signed

    texts = PngImagePlugin.PngInfo()
    for number in range(24):
        wide = "\U0001f600" * 140
        texts.add_itxt("note", f'{wide} AIGC {{"Label": 1, "ContentProducer": "a{number}{wide[:50]}"')
    signed_ones = [signed(picture(), created(MODEL)), signed(picture("PNG"), created(MODEL), "image/png")]
    return [*signed_ones, picture("WEBP"), picture("PNG", pnginfo=texts)]


TARGETS = {
    "evidence": Target(evidence, lambda: [*_signed(), *seeds.pictures().values()]),
    "sound": Target(sound, lambda: [data for data in seeds.recordings().values() if len(data) < 40_000]),
    "sniff": Target(sniffing, _media_seeds),
    "pictures": Target(pictures, lambda: [*seeds.pictures().values()]),
    "clean_picture": Target(clean_picture, lambda: [*seeds.pictures().values()]),
    "user_data": Target(user_data, lambda: [*seeds.clips().values()]),
    "child_protocol": Target(child_protocol, _answers),
    "feedback_reader": Target(feedback_reader, _feedback_lines),
    "config_reader": Target(config_reader, lambda: [(ROOT / "config.ini").read_bytes()[:3000], b"[server]\nport=1\n"]),
    "report_renderer": Target(
        report_renderer, lambda: [b"photo.png|a|b|c|d|e", b"<script>|=1+1|\xe2\x80\xae|\xff\xfe|\"'><svg onload=x>|\0"]
    ),
    "upload_body": Target(upload_body, _bodies),
}
"""All readers by name."""
