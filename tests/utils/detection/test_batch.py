"""Many files together give what each gives alone; what fails is one file's own matter, and nothing is done twice."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from utils.detection.batch import Work, analyse_files, analyse_together
from utils.detection.engine import unique_crops
from utils.detection.pipeline import Analyser, analyse
from utils.errors import JobCancelledError, MediaCorruptError, MediaUnreadableError
from utils.types import Pixels, Report


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, photo: Pixels) -> list[Path]:
    """Five different photos of one person, and one without."""
    folder = tmp_path_factory.mktemp("photos")
    paths = [folder / f"{n}.png" for n in range(6)]
    for n, path in enumerate(paths):
        Image.fromarray(photo[10 * n :] if n < 5 else np.full((80, 80, 3), 99, np.uint8)).save(path)
    return paths


class Engine:
    """Stands before the analyser's engine: counts, and refuses what a test wants it to."""

    def __init__(self, analyser: Analyser, refuse: Callable[[int], bool] = lambda crops: False) -> None:
        self._engine = analyser.engine
        self._refuse = refuse
        self.crops: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, crops: Sequence[Pixels], on_batch: Any = None) -> Any:
        self.crops.append(len(crops))
        if self._refuse(self.crops[-1]):
            raise RuntimeError("out of memory")
        return self._engine.run(crops, on_batch)


def watched(analyser: Analyser, **how: Any) -> tuple[Analyser, Engine]:
    engine = Engine(analyser, **how)
    return dataclasses.replace(analyser, engine=engine), engine


def assert_alike(one: Report | Exception | None, other: Report) -> None:
    assert isinstance(one, Report)
    assert (one.media, one.deciding_face, one.notices) == (other.media, other.deciding_face, other.notices)
    assert one.verdict.outcome is other.verdict.outcome
    assert one.verdict.probability == pytest.approx(other.verdict.probability, abs=1e-5)
    assert [face.frames[0].box for face in one.faces] == [face.frames[0].box for face in other.faces]


def quiet(stage: str, done: float) -> None:
    """A job that nobody cancels."""


def test_results_come_in_order_and_as_alone(analyser: Analyser, photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(photos[0].read_bytes()[:60])
    paths = [photos[0], tmp_path / "cut.png", photos[5], tmp_path / "gone.png", *photos[1:5]]
    told: list[tuple[str, str]] = []
    results = list(analyse_files(paths, analyser, progress=lambda path, stage, done: told.append((path.name, stage))))
    assert [result.path for result in results] == paths
    assert [type(result.error) for result in results[:4]] == [
        type(None), MediaCorruptError, type(None), MediaUnreadableError,
    ]  # fmt: skip
    for result in results:
        if result.report is not None:
            assert_alike(result.report, analyse(result.path, analyser))
            assert set(result.report.times_ms) == {"decode", "detect", "experts", "decide", "total"}
    assert [name for name, stage in told if stage == "decide"] == [path.name for path in paths]


def test_equal_files_are_analysed_once(analyser: Analyser, photos: list[Path], tmp_path: Path) -> None:
    copies = [Path(shutil.copy(photos[n % 2], tmp_path / f"{n}.png")) for n in range(8)]
    counting, engine = watched(analyser)
    results = list(analyse_files(copies, counting))
    assert sum(engine.crops) == 2
    assert [result.path for result in results] == copies
    for n, result in enumerate(results):
        assert_alike(result.report, analyse(photos[n % 2], analyser))


def test_a_file_equal_to_one_that_failed_is_tried_again(analyser: Analyser, tmp_path: Path, photos: list[Path]) -> None:
    cut = photos[0].read_bytes()[:60]
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        path.write_bytes(cut)
    assert [type(result.error) for result in analyse_files(paths, analyser)] == [MediaCorruptError] * 2


def test_a_fault_of_ours_is_one_file_s_result_and_logged(
    analyser: Analyser, photos: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    broken, _ = watched(analyser, refuse=lambda crops: True)
    (result,) = analyse_files(photos[:1], broken)
    assert result.error is not None
    assert (result.error.code, result.error.detail) == ("internal", "RuntimeError: out of memory")
    assert caplog.records[-1].exc_info is not None


def test_a_batch_that_fails_is_done_one_by_one(analyser: Analyser, photos: list[Path]) -> None:
    weak, engine = watched(analyser, refuse=lambda crops: crops > 1)
    works = [Work(path, quiet) for path in photos[:3]]
    for outcome, path in zip(analyse_together(works, weak), photos[:3], strict=True):
        assert_alike(outcome, analyse(path, analyser))
    assert engine.crops == [3, 1, 1, 1]


def test_a_poisonous_file_fails_alone(analyser: Analyser, photos: list[Path], photo: Pixels, tmp_path: Path) -> None:
    two = np.concatenate([photo, photo], axis=1)
    Image.fromarray(two).save(tmp_path / "two.png")
    fragile, _ = watched(analyser, refuse=lambda crops: crops >= 2)
    outcomes = analyse_together([Work(p, quiet) for p in (photos[0], tmp_path / "two.png", photos[1])], fragile)
    assert isinstance(outcomes[1], RuntimeError)
    for outcome, path in ((outcomes[0], photos[0]), (outcomes[2], photos[1])):
        assert_alike(outcome, analyse(path, analyser))


@pytest.mark.parametrize("where", ["decode", "detect", "experts"])
def test_cancelling_one_leaves_the_others(where: str, analyser: Analyser, photos: list[Path]) -> None:
    def cancel(stage: str, done: float) -> None:
        if stage == where:
            raise JobCancelledError()

    outcomes = analyse_together([Work(photos[0], quiet), Work(photos[1], cancel), Work(photos[2], quiet)], analyser)
    assert isinstance(outcomes[1], JobCancelledError)
    assert_alike(outcomes[0], analyse(photos[0], analyser))
    assert_alike(outcomes[2], analyse(photos[2], analyser))


def test_when_all_are_cancelled_the_networks_stop(analyser: Analyser, photos: list[Path]) -> None:
    def cancel(stage: str, done: float) -> None:
        if stage == "experts":
            raise JobCancelledError()

    counting, engine = watched(analyser)
    outcomes = analyse_together([Work(path, cancel) for path in photos[:2]], counting)
    assert [type(outcome) for outcome in outcomes] == [JobCancelledError] * 2
    assert engine.crops == []


def test_each_medium_is_shown_once(analyser: Analyser, photos: list[Path]) -> None:
    shown: list[tuple[int, int]] = []
    works = [Work(path, quiet, lambda media: shown.append(media.frames[0].pixels.shape[:2])) for path in photos[:3]]
    analyse_together(works, analyser)
    assert len(shown) == 3
    assert all(np.all(report.verdict.probability is not None) for report in analyse_together(works, analyser))


def test_a_progress_that_raises_ends_the_work(analyser: Analyser, photos: list[Path]) -> None:
    def interrupt(path: Path, stage: str, done: float) -> None:
        if path == photos[1]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(analyse_files(photos[:4], analyser, progress=interrupt))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("examine")]


def test_unique_crops() -> None:
    a, b = np.zeros((4, 4, 3), np.uint8), np.ones((4, 4, 3), np.uint8)
    crops, places = unique_crops([a, b, a.copy(), b.copy(), a])
    assert [crop[0, 0, 0] for crop in crops] == [0, 1]
    assert places == [0, 1, 0, 1, 0]


def test_a_still_picture_as_a_video_goes_through_the_networks_once(
    analyser: Analyser, photo: Pixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with av.open(str(tmp_path / "still.mkv"), "w") as out:
        stream: Any = out.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 512, 512, "bgr0"
        for _ in range(12):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(photo), format="rgb24")))
        out.mux(stream.encode())
    sizes: list[int] = []
    networks = analyser.engine.networks
    real = networks.expert_logits
    monkeypatch.setattr(
        networks, "expert_logits", lambda images, only=None: sizes.append(len(images)) or real(images, only)
    )
    detected: list[int] = []
    detect = analyser.detector.detect
    monkeypatch.setattr(analyser.detector, "detect", lambda rgb: detected.append(1) or detect(rgb))
    report = analyse(tmp_path / "still.mkv", analyser)
    assert (sizes, len(detected), len(report.faces[0].frames)) == ([1], 1, 12)
    assert len({score.probability for score in report.faces[0].frames}) == 1
    lstm = next(expert for expert in report.faces[0].experts if expert.name == "lstm")
    assert lstm.available
