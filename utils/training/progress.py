"""Progress of long stages on standard error: a bar that is drawn in place, and lines above it."""

from __future__ import annotations

import sys

from tqdm import tqdm

SELDOM_S = 30.0
"""Between two states of a bar where standard error is a file; no bar for what is done sooner."""


def tell(line: str) -> None:
    """Write a line; on a terminal above the bar."""
    if sys.stderr.isatty():
        tqdm.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr, flush=True)


def bar(what: str, total: int, done: int = 0) -> tqdm:
    """A bar to `update` with each thing done and to leave as a context; `done` things are there from earlier."""
    pause = 0.1 if sys.stderr.isatty() else SELDOM_S
    return tqdm(desc=what, total=total, initial=done, leave=False, mininterval=pause, delay=pause)
