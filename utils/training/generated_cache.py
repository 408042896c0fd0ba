"""What a generator drew, by row of a pack: kept in parts on disk, so that a stopped run loses at most one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Drawn = Mapping[str, npt.NDArray[Any]]
"""The arrays of one row by name; of the same shapes for all rows."""

SAVE_EVERY = 50
PARTS = "part-*.npz"
ROWS = "rows"


def stored_parts(folder: Path) -> dict[int, Drawn]:
    """Everything that is kept in a folder, by row of its pack."""
    held: dict[int, Drawn] = {}
    for part in sorted(folder.glob(PARTS)):
        with np.load(part) as stored:
            arrays = {name: stored[name] for name in stored.files}
        for place, row in enumerate(arrays.pop(ROWS).tolist()):
            held[row] = {name: array[place] for name, array in arrays.items()}
    return held


def draw_parts(
    folder: Path, rows: Sequence[int], draw: Callable[[int], Drawn], told: Callable[[int], None]
) -> dict[int, Drawn]:
    """Draw rows that are not there yet, and keep them in new parts.

    Args:
        folder: one per pack and generator.
        rows: of the pack.
        draw: the arrays of one row.
        told: called with the number of rows done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first = max((int(part.stem.removeprefix("part-")) for part in folder.glob(PARTS)), default=-1) + 1
    out: dict[int, Drawn] = {}
    for low in range(0, len(rows), SAVE_EVERY):
        drawn = {row: draw(row) for row in rows[low : low + SAVE_EVERY]}
        _write_part(folder / f"part-{first + low // SAVE_EVERY:05d}.npz", drawn)
        out |= drawn
        told(len(out))
    return out


def _write_part(path: Path, drawn: Mapping[int, Drawn]) -> None:
    names = next(iter(drawn.values())).keys()
    arrays = {name: np.stack([of_row[name] for of_row in drawn.values()]) for name in names}
    scratch = path.with_suffix(".tmp")
    with scratch.open("wb") as stream:
        np.savez(stream, **{ROWS: np.array(list(drawn), np.int64)}, **arrays)  # type: ignore[arg-type]
    scratch.replace(path)
