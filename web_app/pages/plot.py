"""Geometry of the plot of golden-set figures per version; the template draws it as SVG, without script and style."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, LEFT, RIGHT = 720.0, 52.0, 16.0
TOP, HEIGHT, GAP = 12.0, 132.0, 30.0
TICKS = 4
MOST_NAMES = 12  # more would overlap; then every second, third, ... version is named


@dataclass(frozen=True)
class Dot:
    """One version in one curve; `filled` when it was promoted, `title` says everything in words."""

    x: float
    y: float
    filled: bool
    title: str


@dataclass(frozen=True)
class Curve:
    """A curve through the versions that have the figure; `path` is the `points` of a polyline."""

    key: str
    path: str
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True)
class Panel:
    """Curves over one scale, with its horizontal lines."""

    top: float
    bottom: float
    curves: tuple[Curve, ...]
    ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class Plot:
    """Two panels above each other (AUC with the worst slice; calibration error), and the names of the versions."""

    width: float
    height: float
    left: float
    right: float
    panels: tuple[Panel, ...]
    names: tuple[Tick, ...]


def golden_plot(points: Sequence[Mapping[str, Any]]) -> Plot | None:
    """Where everything goes; None when no version has figures.

    Args:
        points: as in `web_app.api.learning_schemas.GoldenPoint`, oldest first.
    """
    shown = [point for point in points if point["auc"] is not None]
    if not shown:
        return None
    step = (WIDTH - LEFT - RIGHT) / max(len(shown), 2)
    xs = [LEFT + step * (i + 0.5) for i in range(len(shown))]
    second = TOP + HEIGHT + GAP
    panels = (
        _panel(shown, xs, ("auc", "worst_slice"), TOP),
        _panel(shown, xs, ("ece",), second),
    )
    every = -(-len(shown) // MOST_NAMES)
    names = tuple(Tick(x, str(p["version"])) for i, (x, p) in enumerate(zip(xs, shown, strict=True)) if i % every == 0)
    return Plot(WIDTH, second + HEIGHT + 2 * GAP, LEFT, WIDTH - RIGHT, panels, names)


def _panel(points: Sequence[Mapping[str, Any]], xs: Sequence[float], keys: tuple[str, ...], top: float) -> Panel:
    values = [float(point[key]) for point in points for key in keys if point[key] is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = max((high - low) * 0.15, 0.005)
    low, high = max(low - margin, 0.0), min(high + margin, 1.0)

    def y(value: float) -> float:
        return round(top + HEIGHT * (high - value) / (high - low), 2)

    ticks = tuple(
        Tick(y(value), f"{value:.3f}") for value in (low + (high - low) * i / (TICKS - 1) for i in range(TICKS))
    )
    return Panel(top, top + HEIGHT, tuple(_curve(points, xs, key, y) for key in keys), ticks)


def _curve(points: Sequence[Mapping[str, Any]], xs: Sequence[float], key: str, y: Callable[[float], float]) -> Curve:
    dots = tuple(
        Dot(round(x, 2), y(float(point[key])), bool(point["promoted"]), f"{point['version']}: {point[key]:.4f}")
        for x, point in zip(xs, points, strict=True)
        if point[key] is not None
    )
    # the curve of what was served: a rejected candidate stands beside it
    path = " ".join(f"{dot.x},{dot.y}" for dot in dots if dot.filled)
    return Curve(key, path, dots)
