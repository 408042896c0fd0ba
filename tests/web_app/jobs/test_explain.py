"""The worker's thumbnails and close-ups: small, without metadata, gone with their file."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utils.types import Frame, Media, MediaInfo, MediaKind
from web_app.jobs.explain import THUMBNAIL_PX, keep_thumbnail
from web_app.storage.files import MediaStore


def medium(width: int, height: int) -> Media:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, :, 0] = 200
    info = MediaInfo(
        kind=MediaKind.IMAGE, format="png", mime="image/png", width=width, height=height, size_bytes=9, sha256="0" * 64
    )
    return Media(info, (Frame(0, 0.0, pixels),))


@pytest.mark.parametrize(("size", "small"), [((640, 320), (160, 80)), ((40, 32), (40, 32)), ((4000, 33), (160, 1))])
def test_thumbnail_is_small_and_keeps_its_shape(tmp_path: Path, size: tuple[int, int], small: tuple[int, int]) -> None:
    store = MediaStore(tmp_path, 1000)
    store.path("one").write_bytes(b"the upload")
    keep_thumbnail(store.path("one"), medium(*size))
    picture = Image.open(io.BytesIO(store.thumbnail("one").read_bytes()))
    assert picture.size == small
    assert max(picture.size) <= THUMBNAIL_PX
    assert not picture.getexif()
    red, green, _ = np.asarray(picture).reshape(-1, 3).mean(0)
    assert red > 150 > 60 > green, "the colours are in order"


def test_removing_a_file_removes_its_thumbnail(tmp_path: Path) -> None:
    store = MediaStore(tmp_path, 1000)
    store.path("one").write_bytes(b"the upload")
    keep_thumbnail(store.path("one"), medium(64, 64))
    store.remove("one")
    assert list(tmp_path.iterdir()) == []


def test_file_that_was_deleted_meanwhile_leaves_no_thumbnail(tmp_path: Path) -> None:
    keep_thumbnail(tmp_path / "gone", medium(64, 64))
    assert list(tmp_path.iterdir()) == []


def test_disk_that_refuses_costs_the_thumbnail_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keep_thumbnail(tmp_path / "no folder" / "one", medium(64, 64))
    assert "no thumbnail was stored" in caplog.text
