"""The store and the names of uploads: nothing half done is visible, whatever breaks."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.web_app.helpers import media_bytes
from utils.errors import MediaTooLargeError, QueueFullError, StorageFullError, UnsupportedMediaError
from web_app.feedback.votes import delete_analysis
from web_app.jobs import detections
from web_app.jobs.detections import UploadOptions, queue_upload
from web_app.services import Services
from web_app.storage import files as files_module
from web_app.storage.files import MediaStore
from web_app.storage.upload import MAX_NAME_CHARACTERS, Upload, display_name


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_file_appears_whole(tmp_path: Path) -> None:
    content = media_bytes(size=20_000)
    with MediaStore(tmp_path, 100_000).incoming() as incoming:
        for start in range(0, len(content), 999):
            incoming.write(content[start : start + 999])
            assert [path.suffix for path in files(tmp_path)] == [files_module.PART_SUFFIX]
        stored = incoming.finish()
    assert [path.read_bytes() for path in files(tmp_path)] == [content]
    assert stored.name.startswith(f"{stored.sha256[:2]}/{stored.sha256}-")
    assert (stored.size_bytes, stored.format.name) == (20_000, "png")


def test_the_kind_is_decided_before_the_end(tmp_path: Path) -> None:
    with MediaStore(tmp_path, 10**9).incoming() as incoming, pytest.raises(UnsupportedMediaError):
        incoming.write(b"#!/bin/sh\n" * 1000)
    assert files(tmp_path) == []


def test_too_much_is_refused_at_the_limit(tmp_path: Path) -> None:
    with MediaStore(tmp_path, 1000).incoming() as incoming:
        incoming.write(media_bytes(size=1000))
        with pytest.raises(MediaTooLargeError):
            incoming.write(b"1")
    assert files(tmp_path) == []


class FullFile(io.BytesIO):
    def write(self, _: object) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("step", ["fsync", "write"])
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def receive() -> None:
        with MediaStore(tmp_path, 10**6).incoming() as incoming:
            if step == "fsync":
                monkeypatch.setattr(os, "fsync", full)
            else:
                incoming._file.close()
                incoming._file = FullFile()  # type: ignore[assignment]
            incoming.write(media_bytes())
            incoming.finish()

    with pytest.raises(OSError, match="No space"):
        receive()
    monkeypatch.undo()
    assert files(tmp_path) == []


def test_room_is_left_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = [1_000_000_000, 1_000_000_000, 199_000_000]

    class Usage:
        @property
        def free(self) -> int:
            return free.pop(0)

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage())

    def receive() -> None:
        with MediaStore(tmp_path, 10**8, reserve_bytes=200_000_000).incoming() as incoming:
            for _ in range(20):
                incoming.write(media_bytes(size=1_000_000))

    with pytest.raises(StorageFullError, match="Too little room"):
        receive()
    assert free == []  # it was looked at again and again while the bytes came
    assert files(tmp_path) == []


def test_a_file_larger_than_the_disk_has_no_room_without_a_reserve_either(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    assert not MediaStore(tmp_path, 10**8, reserve_bytes=0).has_room(2 * free)
    assert MediaStore(tmp_path, 10**8, reserve_bytes=0).has_room(free // 2)


def test_cut_off_uploads_are_swept(tmp_path: Path) -> None:
    old, young = tmp_path / f"old{files_module.PART_SUFFIX}", tmp_path / f"young{files_module.PART_SUFFIX}"
    for path in (old, young):
        path.touch()
    os.utime(old, (1, 1))
    assert MediaStore(tmp_path, 1).sweep_cut_off() == 1
    assert files(tmp_path) == [young]


def test_an_upload_that_ends_during_the_sweep_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended, old = tmp_path / f"ended{files_module.PART_SUFFIX}", tmp_path / f"old{files_module.PART_SUFFIX}"
    old.touch()
    os.utime(old, (1, 1))
    media_store = MediaStore(tmp_path, 1)
    monkeypatch.setattr(media_store, "_parts", lambda: iter((ended, old)))
    assert media_store.sweep_cut_off() == 1
    assert files(tmp_path) == []


def stored_upload(parts: Services) -> Upload:
    with parts.store.incoming() as incoming:
        incoming.write(media_bytes())
        return Upload(incoming.finish(), "a.png", ())


def test_a_refused_job_leaves_no_file(parts: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise QueueFullError()

    monkeypatch.setattr(parts.queue, "require_room", refuse)
    with pytest.raises(QueueFullError):
        queue_upload(parts, stored_upload(parts), "client", UploadOptions())
    assert files(parts.paths.uploads) == []


def test_a_deletion_between_two_uploads_keeps_the_second(parts: Services) -> None:
    first = queue_upload(parts, stored_upload(parts), "client", UploadOptions()).public_id
    second = stored_upload(parts)  # on the disk, its row not written yet
    assert delete_analysis(parts, first)
    public_id = queue_upload(parts, second, "client", UploadOptions()).public_id
    with parts.database.read() as session:
        row = detections.find_detection(session, public_id)
    assert row is not None
    assert parts.store.path(row.media.stored_name).read_bytes() == media_bytes()


@given(st.text(max_size=400))
def test_shown_names_are_harmless(untrusted: str) -> None:
    shown = display_name(untrusted)
    assert 0 < len(shown) <= MAX_NAME_CHARACTERS
    assert "/" not in shown
    assert "\\" not in shown
    assert shown.isprintable() or all(c.isprintable() or c.isspace() for c in shown)


@pytest.mark.parametrize(
    ("untrusted", "shown"),
    [
        ("holiday.jpg", "holiday.jpg"),
        ("C:\\Users\\me\\photo.png", "photo.png"),
        ("../../../etc/passwd", "passwd"),
        ("a\x00b\u202e\n.png", "ab.png"),
        ("", "unnamed"),
        ("/", "unnamed"),
    ],
)
def test_names_are_cleaned(untrusted: str, shown: str) -> None:
    assert display_name(untrusted) == shown
