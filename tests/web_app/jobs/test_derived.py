"""The worker's previews: small, without metadata, gone with their file."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utils.types import Frame, Media, MediaInfo, MediaKind, SoundInfo
from web_app.jobs.derived import FRAME_PX, MOST_FRAMES, THUMBNAIL_PX, WAVEFORM_PARTS, keep_previews, waveform
from web_app.storage.files import FRAMES_SUFFIX, THUMBNAIL_SUFFIX, MediaStore


def medium(width: int, height: int, kind: MediaKind = MediaKind.IMAGE, frames: int = 1, form: str = "png") -> Media:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, :, 0] = 200
    info = MediaInfo(
        kind=kind, format=form, mime="image/png", width=width, height=height, size_bytes=9, sha256="0" * 64,
        duration_s=9.0 if kind is MediaKind.VIDEO else None,
    )  # fmt: skip
    return Media(info, tuple(Frame(index, index * 0.5, pixels) for index in range(frames)))


@pytest.mark.parametrize(("size", "small"), [((640, 320), (160, 80)), ((40, 32), (40, 32)), ((4000, 33), (160, 1))])
def test_thumbnail_is_small_and_keeps_its_shape(tmp_path: Path, size: tuple[int, int], small: tuple[int, int]) -> None:
    store = MediaStore(tmp_path, 1000)
    store.path("one").write_bytes(b"the upload")
    keep_previews(store.path("one"), medium(*size))
    picture = Image.open(io.BytesIO(store.path("one", THUMBNAIL_SUFFIX).read_bytes()))
    assert picture.size == small
    assert max(picture.size) <= THUMBNAIL_PX
    assert not picture.getexif()
    red, green, _ = np.asarray(picture).reshape(-1, 3).mean(0)
    assert red > 150 > 60 > green, "the colours are in order"


@pytest.mark.parametrize("count", [1, 16, 300])
def test_frames_of_a_video_are_kept_small_and_with_their_times(tmp_path: Path, count: int) -> None:
    store = MediaStore(tmp_path, 1000)
    store.path("one").write_bytes(b"the upload")
    keep_previews(store.path("one"), medium(1280, 720, MediaKind.VIDEO, count))
    frames = json.loads(store.path("one", FRAMES_SUFFIX).read_bytes())["frames"]
    assert min(count, MOST_FRAMES) * 0.9 <= len(frames) <= MOST_FRAMES
    times = [frame["time_s"] for frame in frames]
    assert times == sorted(times)
    assert times[0] == 0
    for frame in (frames[0], frames[-1]):
        picture = Image.open(io.BytesIO(base64.b64decode(frame["jpeg"])))
        assert picture.size == (FRAME_PX, FRAME_PX * 9 // 16)
        assert not picture.getexif()


def test_a_recording_keeps_its_form_and_a_drawing_of_it(tmp_path: Path) -> None:
    store = MediaStore(tmp_path, 1000)
    store.path("one").write_bytes(b"the upload")
    sound = SoundInfo(codec="mp3", rate_hz=44100, channels=2, duration_s=2.0)
    info = MediaInfo(
        kind=MediaKind.AUDIO, format="mp3", mime="audio/mpeg", width=0, height=0, size_bytes=9, sha256="0" * 64,
        duration_s=2.0, codec="mp3", sound=sound,
    )  # fmt: skip
    samples = np.zeros(32000, np.float32)
    samples[24000:] = -0.5
    keep_previews(store.path("one"), Media(info, (), samples=samples))
    kept = json.loads(store.path("one", FRAMES_SUFFIX).read_bytes())
    assert kept["frames"] == []
    assert len(kept["waveform"]) == WAVEFORM_PARTS
    assert set(kept["waveform"][: WAVEFORM_PARTS * 3 // 4]) == {0.0}
    assert set(kept["waveform"][WAVEFORM_PARTS * 3 // 4 :]) == {0.5}
    grey = np.asarray(Image.open(io.BytesIO(store.path("one", THUMBNAIL_SUFFIX).read_bytes())).convert("L"), float)
    assert grey.shape == (THUMBNAIL_PX * 2 // 3, THUMBNAIL_PX)
    loud, quiet = grey[:, 130:], grey[:, :100]
    assert (loud < 128).mean() > 5 * (quiet < 128).mean() > 0


@pytest.mark.parametrize("count", [0, 1, 5, 10_000])
def test_the_form_of_a_sound_misses_no_sample(count: int) -> None:
    for at in {0, count // 3, count - 1} if count else set():
        samples = np.zeros(count, np.float32)
        samples[at] = -1
        assert max(waveform(samples)) == 1
    assert len(waveform(np.zeros(count, np.float32))) == min(count, WAVEFORM_PARTS)


def test_a_picture_keeps_no_frames(tmp_path: Path) -> None:
    store = MediaStore(tmp_path, 1000)
    store.path("one").write_bytes(b"the upload")
    keep_previews(store.path("one"), medium(64, 64))
    assert not store.path("one", FRAMES_SUFFIX).exists()


def test_a_picture_that_is_not_handed_out_keeps_its_frame(tmp_path: Path) -> None:
    store = MediaStore(tmp_path, 1000)
    store.path("one").write_bytes(b"the upload")
    keep_previews(store.path("one"), medium(64, 64, form="heic"))
    assert len(json.loads(store.path("one", FRAMES_SUFFIX).read_bytes())["frames"]) == 1


def test_removing_a_file_removes_its_previews(tmp_path: Path) -> None:
    store = MediaStore(tmp_path, 1000)
    store.path("one").write_bytes(b"the upload")
    keep_previews(store.path("one"), medium(64, 64, MediaKind.VIDEO))
    store.remove("one")
    assert list(tmp_path.iterdir()) == []


def test_file_that_was_deleted_meanwhile_leaves_no_previews(tmp_path: Path) -> None:
    keep_previews(tmp_path / "gone", medium(64, 64))
    assert list(tmp_path.iterdir()) == []


def test_disk_that_refuses_costs_the_previews_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keep_previews(tmp_path / "no folder" / "one", medium(64, 64))
    assert ".thumb was not stored" in caplog.text
