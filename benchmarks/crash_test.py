"""The crash drill: SIGKILL at every step of rollback, training and promotion, then look what is left.

    python -m benchmarks.crash_test [--times 100]

A child does what the worker does (recover, roll back, train, promote) on a copy of the version in use, and is killed at
the k-th file operation: each opening for writing, rename, link, new folder, change of rights, fsync, and in the middle
of each line that is written. After every kill `CURRENT` must name a whole version, every version folder must verify,
and no line of the history may be lost; after `recover` nothing half may be left.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import run_command, tell
from benchmarks.poisoning import Arena
from utils.config import load_settings
from utils.errors import TelltaleError
from utils.feedback.feature_set import CachedItem
from utils.feedback.history import read_history, verify_history
from utils.feedback.quarantine import LearningItem
from utils.feedback.retrain import train_version
from utils.feedback.versions import recover, rollback
from utils.weights import current_name, list_versions, verify_version, weights_root

ITEMS = 4
WATCHED = ("os.rename", "os.mkdir", "os.link", "os.remove", "os.rmdir", "os.chmod", "shutil.rmtree")


class Counter:
    """Counts file operations of this process, and kills it at one of them; for a child that ends soon.

    Args:
        kill_at: number of the operation, from 1; 0 only counts.
    """

    def __init__(self, kill_at: int) -> None:
        self.count, self._kill_at = 0, kill_at

    def install(self) -> None:
        """From now on; an audit hook cannot be taken out again."""
        write, fsync = os.write, os.fsync

        def counted_write(descriptor: int, data: bytes) -> int:
            if self._is_time():
                write(descriptor, data[: len(data) // 2])  # a line torn in the middle
                self._die()
            return write(descriptor, data)

        def counted_fsync(descriptor: int) -> None:
            self._count()
            fsync(descriptor)

        os.write, os.fsync = counted_write, counted_fsync  # type: ignore[assignment]
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        writing = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wa+")
        if event in WATCHED or writing:
            self._count()

    def _is_time(self) -> bool:
        self.count += 1
        return self.count == self._kill_at

    def _count(self) -> None:
        if self._is_time():
            self._die()

    def _die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def work(arena: Arena, items: list[LearningItem]) -> None:
    """What a worker does after it was started again."""
    recover(arena.root, arena.history)
    if current_name(arena.root) != arena.base.name:
        rollback(arena.root, arena.history, arena.base.name)
    train_version(items, arena.root, arena.history, recipe=arena.recipe)


def run_child(task: Callable[[], None], kill_at: int) -> tuple[bool, int]:
    """Run a task in a forked child with a `Counter`.

    Returns:
        Whether it was killed, and the number of operations where it was not.

    Raises:
        RuntimeError: it failed by itself.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            counter = Counter(kill_at)
            counter.install()
            task()
            os.write(writing, str(counter.count).encode())
            code = 0
        finally:
            os._exit(code)  # nothing of the parent may be cleaned up twice
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        told = stream.read()
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if not killed and os.waitstatus_to_exitcode(status) != 0:
        raise RuntimeError(f"the child failed by itself with status {status}")
    return killed, int(told) if told and not killed else 0


def faults(arena: Arena, lines_before: tuple[str, ...], *, recovered: bool) -> list[str]:
    """What is wrong with the folder and the history; empty when nothing is.

    Args:
        lines_before: hashes of the lines that were there before.
    """
    found = []
    try:
        verify_version(arena.root, current_name(arena.root))
    except TelltaleError as error:
        found.append(f"CURRENT is not valid: {error.detail}")
    for name in list_versions(arena.root):
        try:
            verify_version(arena.root, name)
        except TelltaleError as error:
            found.append(f"a half version is there: {error.detail}")
    check, entries = verify_history(arena.history), read_history(arena.history).entries
    if not check.ok:
        found.append(f"the history is broken: {check.problem}")
    if tuple(e["hash"] for e in entries)[: len(lines_before)] != lines_before:
        found.append("a line of the history was lost")
    if not recovered:
        return found
    told = sorted(str(e["version"]) for e in entries if e["event"] == "training")
    there = sorted(name for name in list_versions(arena.root) if name != arena.base.name)
    if told != there:
        found.append(f"versions {there}, but the history tells of {told}")
    moves = [e for e in entries if e["event"] == "activation"]
    if (moves[-1]["to"] if moves else arena.base.name) != current_name(arena.root):
        found.append("the history does not tell which version is served")
    if list(arena.root.glob(".*.tmp")) or list(arena.root.glob("*.tmp")):
        found.append("scratch files are left")
    return found


def run_crashes(
    root: Path, name: str, times: int, tell: Callable[[str], None] = lambda line: None
) -> tuple[int, list[str]]:
    """Kill a child again and again, at other operations each time.

    Args:
        root: the folder with the versions; it is only read.

    Returns:
        Number of kills that happened, and every fault that was found.
    """
    import torch

    torch.set_num_threads(1)  # a forked child must not wait for threads that only its parent has
    found: list[str] = []
    kills = 0
    with tempfile.TemporaryDirectory() as folder:
        arena = Arena(root, name, Path(folder) / "arena")
        items = easy_items(arena)
        whole = max(run_child(lambda: work(arena, items), 0)[1] for _ in range(2))
        tell(f"one round has {whole} file operations")
        for number in range(times):
            lines = tuple(e["hash"] for e in read_history(arena.history).entries)
            kill_at = 1 + (number * 7 + number // whole) % whole  # 7 apart, so that few kills meet many steps
            killed, _ = run_child(lambda at=kill_at: work(arena, items), kill_at)  # type: ignore[misc]
            kills += killed
            found += [f"kill {number + 1} at {kill_at}: {f}" for f in faults(arena, lines, recovered=False)]
            recover(arena.root, arena.history)
            found += [f"kill {number + 1} at {kill_at}, recovered: {f}" for f in faults(arena, lines, recovered=True)]
            if number % 10 == 9:
                tell(f"{number + 1} rounds, {kills} kills, {len(found)} faults")
        promoted = sum(bool(e.get("promoted")) for e in read_history(arena.history).entries)
        tell(f"{promoted} promotions were among them")
    return kills, found


def easy_items(arena: Arena) -> list[LearningItem]:
    """The base's nearest mistakes, so that a short training corrects one and the candidate is promoted."""
    wrong = arena.crowd.mistakes()
    nearest = wrong[np.argsort(np.abs(arena.crowd.scores[wrong] - 0.5))][:ITEMS]
    items = []
    for i in nearest:
        sha256 = arena.crowd.medium(int(i))
        path = arena.features / f"{sha256}.npz"
        CachedItem(*arena.crowd.features(sha256), arena.lineage.golden[0].experts).save(path)
        label: Any = int(arena.crowd.pool.labels[i])
        items.append(LearningItem(sha256, label, path, "feedback"))
    return items


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the command: 0 without faults, 1 with some, 3 when it could not run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crash_test", description="The crash drill.")
    parser.add_argument("--times", type=int, default=100, help="number of kills")
    parser.add_argument("--version", default="", help="name of the version (default: the one in use)")
    return run_command(parser, arguments, _crash)


def _crash(chosen: argparse.Namespace) -> int:
    root = weights_root(load_settings())
    kills, found = run_crashes(root, chosen.version or current_name(root), chosen.times, tell)
    print("\n".join(found) or f"{kills} kills, no fault.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
