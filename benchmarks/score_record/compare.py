"""Two records side by side: every leaf that differs, by how much, and what only one of them has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

BATCHED_TORCH = "scores/torch/batched/"
BATCHED_TOLERANCE = 1e-5
"""Torch rounds differently when other crops are in the batch, and which are depends on what is decoded in time."""
Leaf = float | int | str | bool | None


@dataclass(frozen=True)
class Difference:
    """One leaf that is not the same.

    Args:
        before: the value of the older record; `<nothing>` where it has none.
        size: absolute distance of two numbers; None for anything else.
    """

    path: str
    before: object
    after: object
    size: float | None

    def __str__(self) -> str:
        size = "" if self.size is None else f" ({self.size:.3g} apart)"
        return f"{self.path}: {self.before!r} -> {self.after!r}{size}"


def compare(before: Any, after: Any, leave_out: Sequence[str] = ()) -> list[Difference]:
    """What differs between two records, but for how many modules of our own each process holds.

    Args:
        leave_out: members with these names are not compared, wherever they are.
    """
    old, new = (dict(_leaves(record, "", frozenset({*leave_out, "own_modules"}))) for record in (before, after))
    out = []
    for path in [*old, *(path for path in new if path not in old)]:
        one, other = old.get(path, "<nothing>"), new.get(path, "<nothing>")
        if type(one) is type(other) and one == other:
            continue
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (one, other))
        size = abs(float(other) - float(one)) if numbers else None  # type: ignore[arg-type]
        if size is None or size > BATCHED_TOLERANCE or not path.startswith(BATCHED_TORCH):
            out.append(Difference(path, one, other, size))
    return out


def _leaves(value: Any, path: str, leave_out: frozenset[str]) -> Iterator[tuple[str, Leaf]]:
    if isinstance(value, dict):
        for name, member in value.items():
            if name not in leave_out:
                yield from _leaves(member, f"{path}/{name}" if path else name, leave_out)
    elif isinstance(value, list):
        for number, member in enumerate(value):
            yield from _leaves(member, f"{path}/{number}", leave_out)
    else:
        yield path, value
