"""Files are written whole or not at all, and locks end with their holder."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from utils.detection.processor import usable_cores
from utils.files import DamagedLine, append_line, file_sha256, locked, read_lines, replace_file


def test_sha256_is_of_the_whole_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 3_000_000)
    assert file_sha256(tmp_path / "f") == hashlib.sha256(b"x" * 3_000_000).hexdigest()


def test_a_file_is_replaced_whole_or_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    replace_file(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="disk full"):
            replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    replace_file(path, b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("f", b"new")]


def test_a_replaced_file_is_an_ordinary_one(tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        replace_file(tmp_path / "f", b"a\r\nb")
    finally:
        os.umask(umask)
    assert (tmp_path / "f").read_bytes() == b"a\r\nb"
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640


def test_a_lock_is_one_holder_s_and_ends_with_it(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with locked(tmp_path / "l"), pytest.raises(BlockingIOError), locked(tmp_path / "l", wait=False):
        pass
    killed = multiprocessing.get_context("fork").Process(target=_hold_and_die, args=(tmp_path / "l",))
    killed.start()
    killed.join(60)
    with locked(tmp_path / "l", wait=False):
        pass


def _hold_and_die(path: Path) -> None:
    with locked(path):
        os._exit(1)


def test_lines_are_read_and_what_is_none_is_told(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"

    def number(plain: Any) -> int:
        if not isinstance(plain, int):
            raise ValueError("no number")
        return plain

    assert read_lines(path, number) == ([], [])
    path.write_bytes(b'1\n\n"two"\n{"torn')
    append_line(path, lambda: b"4\n")
    entries, damaged = read_lines(path, number)
    assert entries == [1, 4]
    assert [line.number for line in damaged] == [3, 4]
    assert damaged[0] == DamagedLine(3, "no number")


# Cores that may be used: affinity and the quota of a container, of both versions of control groups.


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize(
    ("limit", "cores"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("20000 100000", 1),
        ("9900000 100000", 8),
        ("", 8),
    ],
)
def test_quota_of_version_2(limit: str, cores: int, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(limit + "\n")
    assert usable_cores(tmp_path) == cores


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize(("quota", "cores"), [("-1", 8), ("300000", 3)])
def test_quota_of_version_1(quota: str, cores: int, tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert usable_cores(tmp_path) == cores


def test_without_control_groups_all_that_affinity_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    assert usable_cores(tmp_path) == 1
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert usable_cores(tmp_path) == (os.cpu_count() or 1)
