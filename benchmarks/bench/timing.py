"""Interleaved timing: every round runs each variant once, so that a busy moment of the machine falls on all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.reliability.common import percentile


@dataclass(frozen=True)
class Row:
    """One line of the results.

    Args:
        value: the median, or the figure itself.
        low: the lower quartile; None where there is one value only.
        ratio: of the medians, against the first variant of its group.
    """

    section: str
    variant: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    ratio: float | None = None
    note: str = ""


def interleave(variants: Mapping[str, Callable[[], object]], rounds: int, *, warm: int = 1) -> dict[str, list[float]]:
    """Milliseconds of each variant, one per round after `warm` that do not count; their order turns round by round."""
    names = list(variants)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(warm + rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started = time.perf_counter()
            variants[name]()
            if turn >= warm:
                times[name].append(1000 * (time.perf_counter() - started))
    return times


def rows_of(section: str, times: Mapping[str, Sequence[float]], notes: Mapping[str, str]) -> list[Row]:
    """Medians, quartiles and ratios to the first variant, of milliseconds measured elsewhere."""
    first = statistics.median(next(iter(times.values())))
    rows = []
    for name, values in times.items():
        low, middle, high = percentile(values, 0.25), statistics.median(values), percentile(values, 0.75)
        spread = round(low, 2), round(high, 2)
        rows.append(Row(section, name, round(middle, 2), "ms", *spread, round(middle / first, 3), notes.get(name, "")))
    return rows
