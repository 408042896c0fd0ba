"""What a generator draws of some crops of a pack: kept in parts on disk, so that a stopped run loses at most one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.training.crop_set import PackedCrop
from utils.training.progress import bar
from utils.training.views import shuffled_sources

Drawn = Mapping[str, npt.NDArray[Any]]
"""The arrays of one row by name; of the same shapes for all rows."""
Draw = Callable[[PackedCrop], Drawn]

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


def choose_rows(rows: Iterable[PackedCrop], per_source: int, held: Collection[int], seed: int) -> list[int]:
    """Numbers of at most `per_source` real crops of each source, in rising order; what is held already comes first.

    Args:
        rows: packed crops of the training split; fakes are passed over.
        per_source: the many small sources of clips count as one.
        held: rows that have been drawn before.
        seed: of the draw.
    """
    rng = np.random.default_rng([seed, 77])
    chosen: list[int] = []
    for drawn in shuffled_sources((row for row in rows if not row.label), rng):
        chosen += sorted((row.row for row in drawn), key=lambda number: number not in held)[:per_source]
    return sorted(chosen)


def drawn_rows(
    rows: Sequence[PackedCrop], per_source: int, folder: Path, ready: Callable[[], Draw], what: str, *, seed: int
) -> dict[int, Drawn]:
    """What is drawn of some crops, by row; kept in `folder`, where a stopped run goes on.

    Args:
        rows: those to choose from.
        per_source: see `choose_rows`.
        folder: one per pack and generator.
        ready: gives what draws, which is only asked for when something is to be drawn.
        what: is drawn; names the bar.
        seed: of the choice.
    """
    held = stored_parts(folder)
    chosen = choose_rows(rows, per_source, held, seed)
    missing = [number for number in chosen if number not in held]
    if missing:
        draw, by_row = ready(), {row.row: row for row in rows}
        folder.mkdir(parents=True, exist_ok=True)
        first = max((int(part.stem.removeprefix("part-")) for part in folder.glob(PARTS)), default=-1) + 1
        with bar(what, len(missing)) as shown:
            for low in range(0, len(missing), SAVE_EVERY):
                drawn = {}
                for number in missing[low : low + SAVE_EVERY]:
                    drawn[number] = draw(by_row[number])
                    shown.update()
                _write_part(folder / f"part-{first + low // SAVE_EVERY:05d}.npz", drawn)
                held |= drawn
    return {number: held[number] for number in chosen}


def _write_part(path: Path, drawn: Mapping[int, Drawn]) -> None:
    names = next(iter(drawn.values())).keys()
    arrays = {name: np.stack([of_row[name] for of_row in drawn.values()]) for name in names}
    scratch = path.with_suffix(".tmp")
    with scratch.open("wb") as stream:
        np.savez(stream, **{ROWS: np.array(list(drawn), np.int64)}, **arrays)  # type: ignore[arg-type]
    scratch.replace(path)
