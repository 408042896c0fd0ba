"""SIGKILL at every step of feedback."""

from __future__ import annotations

from pathlib import Path

from tests.web_app.feedback.kill_steps import STEPS, check, run
from web_app.paths import InstancePaths


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    summary = run(tmp_path / "instance", rounds=2)
    assert summary["faults"] == []
    assert summary["kills"] == 2 * len(STEPS)
    assert summary["torn_lines"] >= 1
    assert summary["acknowledged"] >= 2


def test_the_check_itself_sees_a_lost_line(tmp_path: Path) -> None:
    folder = tmp_path / "instance"
    run(folder, rounds=1)
    last = STEPS.index("acknowledged")
    assert check(folder, {last: {"fake"}}) == []
    assert check(folder, {last: {"real"}}) != []
    log = InstancePaths(folder).feedback_log
    log.write_bytes(b"")
    assert check(folder, {}) == ["log and database differ", "decisions of log and database differ"], (
        "and no row is deleted because its line is gone"
    )
