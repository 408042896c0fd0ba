"""The process of the learning: its errors come back, it ends when it is told to, and with its worker."""

from __future__ import annotations

import json
import multiprocessing
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.web_app.helpers import wait_until
from utils.errors import JobCancelledError, NothingNewError, TelltaleError
from web_app.feedback.learner import Progress, call, train
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
    wait_until(lambda: not stat.is_file() or ") Z " in stat.read_text(), 20)
