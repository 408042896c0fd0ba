"""`make scale` without networks: two servers and two workers of their own folders do one job together."""

from __future__ import annotations

import subprocess
import sys

import pytest

from web_app.paths import ROOT


@pytest.mark.slow
def test_servers_and_workers_share_database_broker_and_bucket_only() -> None:
    command = [sys.executable, "-m", "benchmarks.scale", "serve", "--stand-in", "--once"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "fake"
