"""`make scale` without networks: two servers and two workers of their own folders do one job together; the figures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.scale import rows
from benchmarks.scale.__main__ import BEGIN, END, PAGE, write_figures
from web_app.paths import ROOT


@pytest.mark.slow
def test_servers_and_workers_share_database_broker_and_bucket_only() -> None:
    command = [sys.executable, "-m", "benchmarks.scale", "serve", "--stand-in", "--once"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "fake"


def test_what_rows_cost_is_measured_on_both_databases_and_written(tmp_path: Path) -> None:
    figures = [*rows.history(300), *rows.cost(1_100, rows.TURNS)]
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
