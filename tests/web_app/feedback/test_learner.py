"""The process of the learning: its errors come back, it ends when it is told to, and with its worker."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
from PIL import Image

from tests.web_app.helpers import wait_until
from utils.config import Settings
from utils.detection.pipeline import analyse, load_analyser
from utils.errors import JobCancelledError, NothingNewError, TelltaleError
from utils.feedback import items
from utils.types import Pixels, Report
from web_app.feedback.learner import Learner, Progress, call, train
from web_app.feedback.model_handle import ModelHandle
from web_app.paths import ROOT

LOG = ("error", "text")
LASTING = """
import json, multiprocessing, time
from tests.web_app.feedback.test_learner import LOG, last
from web_app.feedback.learner import call
if __name__ == "__main__":
    pid = lambda: json.dumps(multiprocessing.active_children()[0].pid)
    tell = lambda stage, done: stage == "lasting" and print(pid(), flush=True)
    call(last, tell, LOG)
"""


def last(progress: Progress) -> NoReturn:
    while True:
        progress("lasting", 0.5)
        time.sleep(0.2)


def leave(progress: Progress) -> NoReturn:
    raise SystemExit(7)


def add(progress: Progress, one: int, other: int) -> int:
    progress("adding", 0.5)
    return one + other


def test_a_result_and_an_error_come_back_as_they_were(
    own_root: Path, tmp_path: Path, make_lineage: Callable[[Path], None]
) -> None:
    stages: list[str] = []
    assert call(add, lambda stage, done: stages.append(stage), LOG, one=2, other=3) == 5
    assert list(dict.fromkeys(stages)) == ["start", "adding"]
    make_lineage(own_root)
    places: dict[str, Any] = {"items": [], "root": own_root, "history": tmp_path / "history.jsonl"}
    with pytest.raises(NothingNewError, match="No accepted item"):
        call(train, lambda *_: None, LOG, **places)
    with pytest.raises(TelltaleError, match="ended with code 7"):
        call(leave, lambda *_: None, LOG)
    assert multiprocessing.active_children() == []


def test_a_cancelled_task_ends_its_process() -> None:
    def cancelled(stage: str, done: float) -> None:
        if stage == "lasting":
            raise JobCancelledError

    with pytest.raises(JobCancelledError):
        call(last, cancelled, LOG)
    assert multiprocessing.active_children() == []


def test_it_ends_with_its_worker(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(LASTING)
    command = [sys.executable, str(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}) as worker:
        assert worker.stdout is not None
        stat = Path(f"/proc/{json.loads(worker.stdout.readline())}/stat")
        assert stat.is_file()
        worker.send_signal(signal.SIGKILL)
    wait_until(lambda: not stat.is_file() or ") Z " in stat.read_text())


def environment(progress: Progress, name: str) -> str | None:
    return os.environ.get(name)


def test_its_process_computes_with_one_thread_and_the_worker_with_as_many_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        assert call(environment, lambda *_: None, LOG, name=name) == "1"
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert "OPENBLAS_NUM_THREADS" not in os.environ


def test_features_of_the_last_analyses_are_kept_up_to_a_budget_and_given_once(
    learning_settings: Settings, tmp_path: Path, photo: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = ModelHandle(learning_settings, load_analyser)
    learner = Learner(learning_settings, served)
    paths = [tmp_path / f"{n}.png" for n in range(3)]

    def analysed(path: Path) -> Report:
        Image.fromarray(photo).save(path)
        hash_it, keep = partial(learner.keep_hash, path), partial(learner.keep, path)
        return analyse(path, served.analyser, on_media=hash_it, on_scores=keep)

    looked: list[Path] = []
    real = items.prepare_faces
    monkeypatch.setattr(items, "prepare_faces", lambda path, *more: (looked.append(path), real(path, *more))[1])
    deciding = analysed(paths[0]).deciding_face
    first = learner.look(paths[0], [None])
    assert looked == []
    assert (first.deciding, first.phash is None) == (deciding, False)
    again = learner.look(paths[0], [None])
    assert looked == [paths[0]], "it was given already"
    one, other = first.faces[None], again.faces[None]
    assert not isinstance(one, str)
    assert not isinstance(other, str)
    assert (one.tokens == other.tokens).all()
    monkeypatch.setattr("web_app.feedback.learner.KEPT_BYTES", one.tokens.nbytes + 1500)
    for path in paths[1:]:
        analysed(path)
    for path in paths[1:]:
        learner.look(path, [None])
    assert looked == paths[:2], "the older of the two was dropped"


def test_a_medium_without_a_face_takes_room_of_the_budget_too(
    learning_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = ModelHandle(learning_settings, load_analyser)
    learner = Learner(learning_settings, served)
    looked: list[Path] = []
    real = items.prepare_faces
    monkeypatch.setattr(items, "prepare_faces", lambda path, *more: (looked.append(path), real(path, *more))[1])
    paths = [tmp_path / "1.png", tmp_path / "2.png"]
    monkeypatch.setattr("web_app.feedback.learner.KEPT_BYTES", 1500)
    for path in paths:
        Image.new("RGB", (200, 200)).save(path)
        analyse(path, served.analyser, on_scores=partial(learner.keep, path))
    for path in paths:
        learner.look(path, [None])
    assert looked == paths[:1], "one had room"
