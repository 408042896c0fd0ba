"""`make scale` without networks: two servers and two workers of their own folders do one job together; the figures."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.scale import rows
from benchmarks.scale.__main__ import BEGIN, END, PAGE, write_figures
from benchmarks.scale.house import House
from tests.web_app.helpers import make_settings
from web_app.paths import ROOT


@pytest.mark.slow
def test_servers_and_workers_share_database_broker_and_bucket_only(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.scale", "serve", "--stand-in", "--once"]
    said = tmp_path / "said"
    with said.open("w") as file:  # no pipe: whoever survives would hold it open
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, start_new_session=True)
        try:
            assert process.wait(300) == 0, said.read_text()[-3000:]
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert said.read_text().splitlines()[-1] == "fake"


def test_a_process_that_ends_is_noticed(tmp_path: Path) -> None:
    found = House.__new__(House)
    found.workers = []
    found.start("tests.web_app.fake_worker", "--wrong", settings=make_settings(tmp_path))
    with pytest.raises(RuntimeError, match=r"fake_worker', '--wrong'\] has ended with 2"):
        found.wait_until(lambda: False)


def test_what_rows_cost_is_measured_on_both_databases_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "WARM", 1)
    figures = [*rows.history(300, 3), *rows.cost(1_100, rows.TURNS)]
    assert len(figures) == 3
    assert all(figure.timed for figure in figures)
    page, told = tmp_path / "page.md", PAGE.read_text(encoding="utf-8")
    page.write_text(told, encoding="utf-8")
    write_figures(figures, page)
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    written, _, after = rest.partition(END)
    assert written.count("\n| ") == len(figures) + 1
    assert told.startswith(before + BEGIN)
    assert told.endswith(END + after)
