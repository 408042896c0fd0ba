"""Interleaved timing: every round runs each variant once, so that a busy moment of the machine falls on all alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the results.

    Args:
        section: what was measured, such as `image`.
        variant: one of those side by side.
        value: the median, or the figure itself.
        unit: of the value, such as `ms`.
        low: the lower quartile; None where there is one value only.
        high: the upper quartile.
        ratio: of the medians, against the first variant of its group.
        note: what else must be known.
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
    """Milliseconds of each variant, one per round.

    Args:
        variants: by name; the order turns round by round, so that none always runs behind the same one.
        rounds: that count.
        warm: rounds before them that do not.
    """
    names = list(variants)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(warm + rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started = time.perf_counter()
            variants[name]()
            if turn >= warm:
                times[name].append(1000 * (time.perf_counter() - started))
    return times


def compare(
    section: str,
    variants: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm: int = 1,
    notes: Mapping[str, str] | None = None,
) -> list[Row]:
    """Time variants against the first one."""
    return rows_of(section, interleave(variants, rounds, warm=warm), notes or {})


def rows_of(section: str, times: Mapping[str, Sequence[float]], notes: Mapping[str, str]) -> list[Row]:
    """Medians, quartiles and ratios to the first variant, of milliseconds measured elsewhere."""
    first = statistics.median(next(iter(times.values())))
    return [
        Row(
            section,
            name,
            round(statistics.median(values), 2),
            "ms",
            round(percentile(values, 0.25), 2),
            round(percentile(values, 0.75), 2),
            round(statistics.median(values) / first, 3),
            notes.get(name, ""),
        )
        for name, values in times.items()
    ]


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def print_rows(rows: Sequence[Row]) -> None:
    """A table on standard output."""
    section = ""
    for row in rows:
        if row.section != section:
            section = row.section
            print(f"\n{section}")
        spread = "" if row.low is None else f"{row.low:.1f} .. {row.high:.1f}"
        ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
        print(f"  {row.variant:44} {row.value:>10.2f} {row.unit:8} {spread:>20} {ratio:>7}  {row.note}")
