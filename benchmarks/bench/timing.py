"""Interleaved timing: every round runs each variant once, so that a busy moment of the machine falls on all alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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


def interleave(
    variants: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm: int = 1,
    processor: dict[str, float] | None = None,
) -> dict[str, list[float]]:
    """Milliseconds of each variant, one per round after `warm` that do not count; their order turns round by round.

    Args:
        processor: gets the mean processor time of each variant, milliseconds.
    """
    names = list(variants)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(warm + rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            used, started = processor_ms(), time.perf_counter()
            variants[name]()
            if turn >= warm:
                times[name].append(1000 * (time.perf_counter() - started))
                if processor is not None:
                    processor[name] = processor.get(name, 0.0) + (processor_ms() - used) / rounds
    return times


def processor_ms(pid: int | str = "self") -> float:
    """Processor time so far of a process and of all below it, in steps of 10 ms; 0 where Linux does not count it."""
    place = Path("/proc") / str(pid)
    try:
        ticks = sum(map(int, (place / "stat").read_text().rpartition(")")[2].split()[11:15]))
        below = [child for task in (place / "task").iterdir() for child in (task / "children").read_text().split()]
    except OSError:  # it has ended: what it used is its parent's now
        return 0.0
    return 10.0 * ticks + sum(map(processor_ms, below))


def compare(
    section: str, variants: Mapping[str, Callable[[], object]], rounds: int, notes: Mapping[str, str]
) -> list[Row]:
    """Rows of the time and of the processor time that variants take in turn."""
    used: dict[str, float] = {}
    rows = rows_of(section, interleave(variants, rounds, processor=used), notes)
    first = used[next(iter(variants))] or math.inf
    return rows + [
        Row(f"{section}, processor time", name, round(used[name], 1), "ms", ratio=round(used[name] / first, 3))
        for name in variants
    ]


def rows_of(section: str, times: Mapping[str, Sequence[float]], notes: Mapping[str, str]) -> list[Row]:
    """Medians, quartiles and ratios to the first variant, of milliseconds measured elsewhere."""
    first = statistics.median(next(iter(times.values())))
    rows = []
    for name, values in times.items():
        low, middle, high = percentile(values, 0.25), statistics.median(values), percentile(values, 0.75)
        spread = round(low, 2), round(high, 2)
        rows.append(Row(section, name, round(middle, 2), "ms", *spread, round(middle / first, 3), notes.get(name, "")))
    return rows
