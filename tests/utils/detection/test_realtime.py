"""The running score of a file and of a camera that is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import inference
from utils.detection import realtime
from utils.detection.pipeline import Analyser
from utils.errors import MediaUnreadableError
from utils.types import Frame, Pixels


class Camera:
    """In place of `cv2.VideoCapture`: gives the pictures it was made with, BGR as OpenCV does, and then none."""

    def __init__(self, *pictures: Pixels) -> None:
        self.pictures = list(pictures)
        self.released = False

    def __call__(self, number: int) -> Camera:
        return self

    def isOpened(self) -> bool:
        return bool(self.pictures)

    def set(self, name: int, value: float) -> None:
        """Accepts any property, as a camera may."""

    def read(self) -> tuple[bool, Any]:
        return (True, self.pictures.pop(0)[:, :, ::-1]) if self.pictures else (False, None)

    def release(self) -> None:
        self.released = True


def test_a_camera_gives_a_running_score(analyser: Analyser, photo: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    camera = Camera(photo, np.zeros_like(photo), photo)
    monkeypatch.setattr(cv2, "VideoCapture", camera)
    first, dark, last = realtime.watch("0", analyser)
    assert (first.faces, dark.faces, last.faces) == (1, 0, 1)
    assert (dark.probability, dark.pictures, last.pictures) == (None, 1, 2)
    assert first.running == pytest.approx(first.probability, abs=1e-3)
    assert dark.running == first.running
    assert last.probability == pytest.approx(first.probability, abs=1e-4)
    assert first.time_s <= dark.time_s <= last.time_s
    assert camera.released


def test_the_score_of_a_picture_is_that_of_the_product(analyser: Analyser, photo: Pixels, tmp_path: Path) -> None:
    from utils.detection.pipeline import analyse

    path = tmp_path / "photo.png"
    Image.fromarray(photo).save(path)
    expected = analyse(path, analyser).verdict.probability
    faces, probability = realtime.judge(Frame(3, 1.5, photo), analyser)
    assert (faces, probability) == (1, pytest.approx(expected, abs=1e-6))


def test_no_camera_is_told(analyser: Analyser, monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    monkeypatch.setattr(cv2, "VideoCapture", Camera())
    with pytest.raises(MediaUnreadableError):
        list(realtime.watch("7", analyser))


def test_a_file_is_decoded_as_always(
    tiny_root: Path, photo: Pixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(photo).save(path)
    monkeypatch.setenv("TELLTALE_WEIGHTS__DIR", str(tiny_root))
    assert inference.main(["--realtime", str(path), "--jsonl"]) == inference.EXIT_OK
    (line,) = capsys.readouterr().out.splitlines()
    assert (json.loads(line)["faces"], json.loads(line)["pictures"]) == (1, 1)
    assert inference.main(["--realtime", str(path)]) == inference.EXIT_OK
    assert " 1 face " in capsys.readouterr().out
    assert inference.main(["--realtime", str(tmp_path / "nix.mp4")]) == inference.EXIT_SOME_FAILED
    assert "media_unreadable" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "number"),
    [("0", 0), ("12", 12), ("/dev/video3", 3), ("clip.mp4", None), ("http://x/", None), ("-1", None)],
)
def test_a_number_means_a_camera(source: str, number: int | None) -> None:
    assert realtime.camera_number(source) == number


def test_the_mean_forgets_what_is_old_and_passes_over_pictures_without_a_face(monkeypatch: pytest.MonkeyPatch) -> None:
    said = iter([None, 0.9999, 0.2, None, 0.2])
    frames = [Frame(i, float(i), np.zeros((2, 2, 3), np.uint8)) for i in range(5)]
    monkeypatch.setattr(realtime, "WINDOW", 2)
    monkeypatch.setattr(realtime, "_file_frames", lambda path, analyser: iter(frames))
    monkeypatch.setattr(realtime, "judge", lambda frame, analyser: (1, next(said)))
    moments = list(realtime.watch("clip.mp4", None))  # type: ignore[arg-type]
    assert [(moment.probability, moment.pictures) for moment in moments] == [
        (None, 0), (0.9999, 1), (0.2, 2), (None, 2), (0.2, 2),
    ]  # fmt: skip
    assert moments[0].running is None
    assert moments[2].running == moments[3].running
    assert moments[4].running == pytest.approx(0.2)
