"""What other processes do beside a test; without torch, which would take them seconds to import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from utils.errors import ConflictError
from utils.feedback.versions import learning_lock, rollback


def change_often(root: Path, history: Path, names: tuple[str, str]) -> None:
    for turn in range(6):
        try:
            rollback(root, history, names[turn % 2])
        except ConflictError:
            continue  # the other one was faster


def hold(root: Path, ready: Any, stop: Any) -> None:
    with learning_lock(root):
        ready.set()
        stop.wait(60)
