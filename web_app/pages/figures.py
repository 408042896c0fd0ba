"""Figures on the pages of the model and of the learning.

The template of the model's page reads the served version's card itself, which its training wrote and which travels
with the weights; here are the filters that turn its figures and names into words. Of the learning's page here is the
geometry of the plot of golden-set figures per version; the template draws it as SVG, without script and style.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from models.cards import EXPERT_NAMES, expert_card
from utils.config import Settings
from utils.weights import CARD_FILE, current_name, read_document, weights_root
from web_app.texts import catalogue, text

NONE = "–"
JOINED = ("clips", "pictures")  # sets of the scorecard that join several sources
WIDTH, LEFT, RIGHT = 720.0, 52.0, 16.0
TOP, HEIGHT, GAP = 12.0, 132.0, 30.0
TICKS = 4
MOST_NAMES = 12  # more would overlap; then every second, third, ... version is named
PANELS = (("auc", "worst_slice"), ("ece",))


def read_card(settings: Settings) -> tuple[str, Mapping[str, Any]]:
    """Name and card of the served version.

    Raises:
        WeightsError: no version is chosen, or its card cannot be read.
    """
    root = weights_root(settings)
    name = settings.weights.version or current_name(root)
    return name, read_document(root / name / CARD_FILE)


def engine_sentence(workers: Iterable[Mapping[str, Any]], version: str) -> str:
    """Which engine the worker that serves a version computes with, and each network's precision; empty without one."""
    worker = next((each for each in workers if each.get("model_version") == version), {})
    precisions: Mapping[str, str] = worker.get("precisions") or {}
    if not precisions or "engine" not in worker:
        return ""
    named = [f"{expert_card(key).title if key in EXPERT_NAMES else key} {value}" for key, value in precisions.items()]
    return str(text("model.engine", engine=worker["engine"], networks=", ".join(named)))


def percent(figure: Sequence[float] | float | None) -> str:
    """A share with its interval in per cent: `3.4 % (0.9 to 7.3)`; a dash for none."""
    if not figure and figure != 0:
        return NONE
    if isinstance(figure, int | float):
        return f"{100 * figure:.0f}\u00a0%"
    value, low, high = figure
    return f"{100 * value:.1f}\u00a0% ({100 * low:.1f} to {100 * high:.1f})"


def decimal(figure: Sequence[float] | None) -> str:
    """A figure such as an AUC with its interval: `.892 (.849 to .932)`; a dash for none."""
    if not figure:
        return NONE
    value, low, high = (f"{part:.3f}".removeprefix("0") for part in figure)
    return f"{value} ({low} to {high})"


def set_title(name: str) -> str:
    """A set or source in words where the catalogue has them; `video:x` is the clips of source x."""
    source = name.removeprefix("video:")
    title = str(text(f"model.sets.{source}")) if source in catalogue()["model"]["sets"] else source.replace("_", " ")
    return title if source == name else str(text("model.clips_of", source=title))


def joined_last(sets: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The sets of a scorecard by name, those that join several sources at the end."""
    return sorted(sets.items(), key=lambda item: (item[0] in JOINED, item[0]))


def by_source(crops: Mapping[str, int]) -> list[tuple[str, Mapping[str, int]]]:
    """Counts of keys such as `train dfdc fake` as (`dfdc`, {`train_fake`: count}), clips at the end."""
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for key, count in crops.items():
        split, _, rest = key.partition(" ")
        source, _, label = rest.rpartition(" ")
        if source:
            counts[source][f"{split}_{label}"] = count
    return sorted(counts.items(), key=lambda item: (item[0].startswith("video:"), item[0]))


FILTERS = (percent, decimal, set_title, joined_last, by_source)
"""What the templates use under these names."""


def golden_plot(points: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Where everything goes of points as `GoldenPoint` of the API, oldest first; None when no version has figures.

    Two panels above each other (AUC with the worst slice; calibration error), and the names of the versions. A panel
    has horizontal lines, `ticks`, and a list of dots for each curve, which are `filled` when they were promoted.
    """
    shown = [point for point in points if point["auc"] is not None]
    if not shown:
        return None
    step = (WIDTH - LEFT - RIGHT) / max(len(shown), 2)
    placed = [(round(LEFT + step * (i + 0.5), 2), point) for i, point in enumerate(shown)]
    panels = [_panel(placed, keys, TOP + i * (HEIGHT + GAP)) for i, keys in enumerate(PANELS)]
    names = [{"at": x, "text": point["version"]} for x, point in placed[:: -(-len(shown) // MOST_NAMES)]]
    height = panels[-1]["bottom"] + 2 * GAP
    return {"width": WIDTH, "height": height, "left": LEFT, "right": WIDTH - RIGHT, "panels": panels, "names": names}


def _panel(placed: Sequence[tuple[float, Mapping[str, Any]]], keys: tuple[str, ...], top: float) -> dict[str, Any]:
    values = [float(point[key]) for _, point in placed for key in keys if point[key] is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = max((high - low) * 0.15, 0.005)
    low, high = max(low - margin, 0.0), min(high + margin, 1.0)

    def y(value: float) -> float:
        return round(top + HEIGHT * (high - value) / (high - low), 2)

    curves = {
        key: [
            {"x": x, "y": y(point[key]), "filled": point["promoted"], "title": f"{point['version']}: {point[key]:.4f}"}
            for x, point in placed
            if point[key] is not None
        ]
        for key in keys
    }
    heights = (low + (high - low) * i / (TICKS - 1) for i in range(TICKS))
    ticks = [{"at": y(value), "text": f"{value:.3f}"} for value in heights]
    return {"top": top, "bottom": top + HEIGHT, "curves": curves, "ticks": ticks}
