"""Which files a command line means: paths, folders and glob patterns become a list, before any of them is analysed."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.detection.cli_output import FileResult
from utils.errors import MediaUnreadableError
from utils.log import escape


@dataclass(frozen=True)
class Collected:
    """The files that a command line means, in order and without repeats, what is missing, and what was passed over."""

    files: tuple[Path, ...]
    missing: tuple[FileResult, ...]
    passed_over: int


def collect_files(arguments: Sequence[str], *, recursive: bool = True) -> Collected:
    """Expand files, folders and glob patterns.

    A folder gives its media files in the order of their names: files with the suffix of a format that we read. Hidden
    files are left out and links to folders are not followed. A file that is named itself is taken whatever its suffix.

    Args:
        arguments: paths or patterns (`*`, `?`, `[...]`, `**`); a path that exists is never read as a pattern.
        recursive: enter the folders inside folders.

    Returns:
        The files; arguments that lead to nothing are `missing` with a `MediaUnreadableError` each.
    """
    files: dict[str, Path] = {}
    missing: list[FileResult] = []
    passed_over = 0
    for argument in arguments:
        matches = _matches(argument)
        if not matches:
            missing.append(_unreadable(Path(argument), "No file has this name or matches this pattern."))
        for path in matches:
            inside, others, unreadable = _expand(path, recursive=recursive)
            for file in inside:
                files.setdefault(os.path.realpath(file), file)
            missing += unreadable
            passed_over += others
    return Collected(tuple(files.values()), tuple(missing), passed_over)


def _matches(argument: str) -> list[Path]:
    path = Path(argument)
    try:
        if os.path.lexists(path):
            return [path]
    except ValueError:  # a NUL byte inside
        return []
    if not glob.has_magic(argument):
        return []
    return [Path(match) for match in sorted(glob.glob(argument, recursive=True))]  # noqa: PTH207 (absolute patterns)


def _expand(path: Path, *, recursive: bool) -> tuple[list[Path], int, list[FileResult]]:
    """The media files of a folder, how many others it holds and what could not be read; a file stands for itself."""
    if not os.path.isdir(path):  # noqa: PTH112 (Path.is_dir raises where we lack permission)
        return [path], 0, []
    from utils.media.sniff import SUFFIXES  # loads NumPy, which --help does without

    known = frozenset().union(*SUFFIXES.values())
    inside: list[Path] = []
    others = 0
    unreadable: list[FileResult] = []

    def note(error: OSError) -> None:
        unreadable.append(_unreadable(Path(error.filename), f"The folder cannot be read: {error.strerror}."))

    for root, folders, names in os.walk(path, onerror=note):
        folders[:] = sorted(f for f in folders if not f.startswith(".")) if recursive else []
        for name in sorted(n for n in names if not n.startswith(".")):
            if Path(name).suffix.lower() in known:
                inside.append(Path(root) / name)
            else:
                others += 1
    if not inside and not unreadable:
        unreadable.append(_unreadable(path, "The folder holds no picture, video or recording that we can read."))
    return inside, others, unreadable


def _unreadable(path: Path, detail: str) -> FileResult:
    return FileResult(path, None, MediaUnreadableError(detail), 0.0)


def check_readable(path: Path) -> None:
    """Make sure that a path is a plain file we may read, before anything waits on a pipe or a device.

    Raises:
        MediaUnreadableError: it does not exist, is a folder, a device or a pipe, or may not be read.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise MediaUnreadableError(f"{escape(str(path))} is not a plain file.")
        with path.open("rb"):
            pass
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise MediaUnreadableError(f"{escape(str(path))} cannot be opened: {reason}.") from error
