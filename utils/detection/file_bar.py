"""The progress bar of `inference.py`: over all files, and within each."""

from __future__ import annotations

import sys
from pathlib import Path

from utils.detection.cli_output import printable


class FileBar:
    """A progress bar over files that also moves within a file; silent where nobody looks at standard error."""

    def __init__(self, total: int, visible: bool) -> None:
        from tqdm import tqdm

        self._bar = tqdm(
            total=total, disable=not visible, file=sys.stderr, leave=False, dynamic_ncols=True,
            bar_format="{percentage:3.0f}% |{bar}| {desc} [{elapsed}<{remaining}]",
        )  # fmt: skip
        self._done = 0

    def __enter__(self) -> FileBar:
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.close()

    def show(self, path: Path, stage: str, fraction: float) -> None:
        """Move to this fraction of the present file."""
        self._bar.set_description_str(f"{self._done}/{self._bar.total} {printable(path.name)}: {stage}", refresh=False)
        self._bar.n = self._done + min(fraction, 1.0)
        self._bar.refresh()

    def finish(self) -> None:
        """Count the present file as done, and make room for a line of output."""
        self._done += 1
        self._bar.n = self._done
        self._bar.clear()
