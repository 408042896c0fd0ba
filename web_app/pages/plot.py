"""Geometry of the plot of golden-set figures per version; the template draws it as SVG, without script and style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

WIDTH, LEFT, RIGHT = 720.0, 52.0, 16.0
TOP, HEIGHT, GAP = 12.0, 132.0, 30.0
TICKS = 4
MOST_NAMES = 12  # more would overlap; then every second, third, ... version is named
PANELS = (("auc", "worst_slice"), ("ece",))


class Dot(NamedTuple):
    """One version in one curve; `filled` when it was promoted, `title` says everything in words."""

    x: float
    y: float
    filled: bool
    title: str


class Tick(NamedTuple):
    at: float
    text: str


class Panel(NamedTuple):
    """Curves over one scale by their figure, with its horizontal lines."""

    top: float
    bottom: float
    curves: dict[str, list[Dot]]
    ticks: list[Tick]


class Plot(NamedTuple):
    """Two panels above each other (AUC with the worst slice; calibration error), and the names of the versions."""

    width: float
    height: float
    left: float
    right: float
    panels: list[Panel]
    names: list[Tick]


def golden_plot(points: Sequence[Mapping[str, Any]]) -> Plot | None:
    """Where everything goes; None when no version has figures.

    Args:
        points: as `GoldenPoint` of the API, oldest first.
    """
    shown = [point for point in points if point["auc"] is not None]
    if not shown:
        return None
    step = (WIDTH - LEFT - RIGHT) / max(len(shown), 2)
    placed = [(round(LEFT + step * (i + 0.5), 2), point) for i, point in enumerate(shown)]
    panels = [_panel(placed, keys, TOP + i * (HEIGHT + GAP)) for i, keys in enumerate(PANELS)]
    names = [Tick(x, str(point["version"])) for x, point in placed[:: -(-len(shown) // MOST_NAMES)]]
    return Plot(WIDTH, panels[-1].bottom + 2 * GAP, LEFT, WIDTH - RIGHT, panels, names)


def _panel(placed: Sequence[tuple[float, Mapping[str, Any]]], keys: tuple[str, ...], top: float) -> Panel:
    values = [float(point[key]) for _, point in placed for key in keys if point[key] is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = max((high - low) * 0.15, 0.005)
    low, high = max(low - margin, 0.0), min(high + margin, 1.0)

    def y(value: float) -> float:
        return round(top + HEIGHT * (high - value) / (high - low), 2)

    curves = {
        key: [
            Dot(x, y(point[key]), bool(point["promoted"]), f"{point['version']}: {point[key]:.4f}")
            for x, point in placed
            if point[key] is not None
        ]
        for key in keys
    }
    heights = (low + (high - low) * i / (TICKS - 1) for i in range(TICKS))
    return Panel(top, top + HEIGHT, curves, [Tick(y(value), f"{value:.3f}") for value in heights])
