"""Progress lines for long stages: seldom enough to be read, often enough to see that something moves."""

from __future__ import annotations

import time
from collections.abc import Callable

from tqdm import tqdm

EVERY_S = 10.0


def counter(tell: Callable[[str], None], what: str, total: int, *, every_s: float = EVERY_S) -> Callable[[int], None]:
    """A function that takes the number of things done and tells it now and then, with the time that is left.

    Args:
        tell: receives the lines.
        what: is counted; begins each line.
        total: number of all.
        every_s: least seconds between two lines; the last count is always told.
    """
    started = last = time.monotonic()
    first: int | None = None
    bar = tqdm(total=total, desc=what, disable=None, leave=False)  # on a terminal; elsewhere lines say it

    def count(done: int) -> None:
        nonlocal last, first
        now = time.monotonic()
        if first is None:
            first = done
        bar.update(done - bar.n)
        if done >= total:
            bar.close()
        if done < total and now - last < every_s:
            return
        last = now
        # what an earlier run had done says nothing of the pace of this one
        pace = (done - first) / (now - started) if now > started else 0.0
        left = f", about {(total - done) / pace / 60:.0f} min left" if pace > 0 and done < total else ""
        tell(f"{what}: {done}/{total}{left}")

    return count
