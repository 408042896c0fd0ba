"""The parts that a handed-out file is put together from, and a way to blank ranges without moving the others."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Self

PORTION = 256 * 1024
_NOTHING = bytes(PORTION)


@dataclass(frozen=True)
class Zeros:
    """So many bytes of zero."""

    count: int


Part = bytes | tuple[int, int] | Zeros
"""Bytes of our own, start and end in the file, or zeros."""


def size_of(parts: Sequence[Part]) -> int:
    """How many bytes the parts are together."""
    return sum(_size(part) for part in parts)


def _size(part: Part) -> int:
    if isinstance(part, Zeros):
        return part.count
    return len(part) if isinstance(part, bytes) else part[1] - part[0]


class Content:
    """The bytes of the parts, in portions; `seek` makes answers to ranges cheap.

    Args:
        data: the whole file.
        parts: of it.
    """

    def __init__(self, data: bytes, parts: Sequence[Part]) -> None:
        self._data = data
        self._parts = parts
        self._starts = list(accumulate((_size(part) for part in parts), initial=0))
        self._at = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        found = []
        room = PORTION
        number = bisect_right(self._starts, self._at) - 1
        while room and number < len(self._parts):
            portion = self._slice(number, self._at - self._starts[number], room)
            found.append(portion)
            self._at += len(portion)
            room -= len(portion)
            number += 1
        if not found:
            raise StopIteration
        return b"".join(found)

    def _slice(self, number: int, start: int, most: int) -> bytes:
        part = self._parts[number]
        if isinstance(part, Zeros):
            return _NOTHING[: min(part.count - start, most)]
        if isinstance(part, bytes):
            return part[start : start + most]
        return self._data[part[0] + start : min(part[0] + start + most, part[1])]

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return self._starts[-1]

    def seekable(self) -> bool:
        return True

    def seek(self, place: int) -> None:
        """Go on at a byte."""
        self._at = min(max(place, 0), self.size)

    def tell(self) -> int:
        return self._at


class Blanking:
    """Changes to a file that keep its length, so that every offset within it stays right.

    Ranges may be named in any order and must not overlap.

    Args:
        size: of the file, bytes.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._changes: list[tuple[int, bytes | int]] = []

    def put(self, start: int, content: bytes) -> None:
        """Write other bytes."""
        self._changes.append((start, content))

    def zero(self, start: int, end: int) -> None:
        """Blank a range; an empty one is fine."""
        if end > start:
            self._changes.append((start, end - start))

    def parts(self) -> list[Part]:
        """The whole file with its changes.

        Raises:
            ValueError: changes overlap or leave the file.
        """
        found: list[Part] = []
        at = 0
        for start, change in sorted(self._changes, key=lambda each: each[0]):
            if start < at:
                raise ValueError("parts overlap")
            if start > at:
                found.append((at, start))
            found.append(change if isinstance(change, bytes) else Zeros(change))
            at = start + (len(change) if isinstance(change, bytes) else change)
        if at > self._size:
            raise ValueError("a part lies outside the file")
        if at < self._size:
            found.append((at, self._size))
        return found
