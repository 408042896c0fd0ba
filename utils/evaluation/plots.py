"""Pictures of a score file for the documentation: ROC, reliability diagram, histogram of the probabilities.

Drawn without a display; each function writes one PNG from labels and probabilities per set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from utils.metrics import Figure as Measured
from utils.metrics import auc, clopper_pearson

Array = npt.NDArray[np.float64]
Sets = Mapping[str, tuple[Array, Array]]
"""Labels (N,) and probabilities (N,) per set."""

BINS = 10
OUTCOMES = ("real", "inconclusive", "fake", "no_face", "failed")
"""Order of the verdicts in tables and plots."""


def roc_points(labels: Array, scores: Array) -> tuple[Array, Array]:
    """False alarm rate and hit rate at every threshold, from (0, 0) to (1, 1); both classes must be there."""
    order = np.argsort(-scores, kind="stable")
    fakes, reals = np.cumsum(labels[order] > 0.5), np.cumsum(labels[order] <= 0.5)
    # equal scores are one threshold, so only the last of them is a point
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    alarms, hits = reals[last] / reals[-1], fakes[last] / fakes[-1]
    return np.concatenate([[0.0], alarms]), np.concatenate([[0.0], hits])


def reliability_points(
    labels: Array, probabilities: Array, bins: int = BINS
) -> list[tuple[float, float, float, float]]:
    """Per bin (equally full): mean probability, share of fakes, and the 95 % interval of that share."""
    order = np.argsort(probabilities, kind="stable")
    points = []
    for part in np.array_split(order, min(bins, len(order))):
        fakes = int((labels[part] > 0.5).sum())
        points.append((float(probabilities[part].mean()), fakes / len(part), *clopper_pearson(fakes, len(part))))
    return points


def plot_roc(sets: Sets, path: Path) -> None:
    """One curve per set that has both classes."""
    figure = _figure(5.2, 5.0)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.7", linestyle=":")
    for name, (labels, probabilities) in sets.items():
        if 0 < labels.mean() < 1:
            axes.plot(*roc_points(labels, probabilities), label=f"{name} (AUC {auc(labels, probabilities):.3f})")
    axes.set(xlabel="false alarms among real ones", ylabel="fakes found", xlim=(0, 1), ylim=(0, 1.01), title="ROC")
    if len(axes.lines) > 1:
        axes.legend(loc="lower right", fontsize="small")
    _save(figure, path)


def plot_reliability(sets: Sets, path: Path) -> None:
    """Stated probability against observed share of fakes, for each set that has both classes."""
    figure = _figure(5.2, 5.0)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.7", linestyle=":")
    for name, (labels, probabilities) in sets.items():
        if 0 < labels.mean() < 1:
            stated, share, low, high = np.array(reliability_points(labels, probabilities)).T
            axes.errorbar(stated, share, yerr=[share - low, high - share], marker="o", capsize=2, label=name)
    axes.set(
        xlabel="stated probability of fake", ylabel="share of fakes", xlim=(0, 1), ylim=(0, 1), title="Reliability"
    )
    if axes.containers:
        axes.legend(loc="upper left", fontsize="small")
    _save(figure, path)


def plot_histograms(sets: Sets, path: Path) -> None:
    """Probabilities of the real and of the fake ones, one panel per set."""
    figure = _figure(6.4, 1.0 + 1.5 * len(sets))
    edges = np.linspace(0, 1, 21).tolist()
    for number, (name, (labels, probabilities)) in enumerate(sets.items()):
        axes = figure.add_subplot(len(sets), 1, number + 1)
        for label, title, colour in ((0, "real", "tab:blue"), (1, "fake", "tab:red")):
            chosen = probabilities[labels == label]
            if len(chosen):
                axes.hist(chosen, edges, alpha=0.55, color=colour, label=f"{title} ({len(chosen)})")
        axes.set(xlim=(0, 1), ylabel=name)
        axes.legend(loc="upper center", fontsize="small")
    figure.axes[-1].set_xlabel("probability of fake")
    _save(figure, path)


def plot_confusion(counts: Mapping[str, Mapping[str, Mapping[str, int]]], path: Path) -> None:
    """Which verdict the real and the fake ones of each set got, as one panel per set.

    Args:
        counts: per set and label (`real`, `fake`) the number of each outcome.
        path: of the PNG.
    """
    outcomes = [
        o for o in OUTCOMES if any(of_label.get(o) for labels in counts.values() for of_label in labels.values())
    ]
    columns = min(3, len(counts))
    rows = -(-len(counts) // columns)
    figure = _figure(3.0 * columns, 0.6 + 1.5 * rows)
    for number, (name, labels) in enumerate(counts.items()):
        axes = figure.add_subplot(rows, columns, number + 1)
        table = np.array([[labels.get(label, {}).get(o, 0) for o in outcomes] for label in ("real", "fake")], float)
        shares = table / np.maximum(table.sum(1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (y, x), share in np.ndenumerate(shares):
            colour = "white" if share > 0.55 else "black"
            axes.text(x, y, f"{int(table[y, x])}\n{share:.0%}", ha="center", va="center", fontsize=7, color=colour)
        axes.set_xticks(range(len(outcomes)), [o.replace("_", " ") for o in outcomes], fontsize=7)
        axes.set_yticks([0, 1], ["real", "fake"], fontsize=8)
        axes.set_title(name, fontsize=9)
    _save(figure, path)


def plot_conditions(sets: Mapping[str, Mapping[str, Measured]], path: Path) -> None:
    """AUC with its interval under each condition, one panel per set.

    Args:
        sets: per set the figure of each condition; the first one is drawn as a line to compare with.
        path: of the PNG.
    """
    figure = _figure(7.5, 0.8 + 0.26 * sum(len(of_set) for of_set in sets.values()))
    heights = [len(of_set) for of_set in sets.values()]
    grid = figure.add_gridspec(len(sets), 1, height_ratios=heights)
    for number, (name, of_set) in enumerate(sets.items()):
        axes = figure.add_subplot(grid[number])
        values = np.array([[f.value, f.low, f.high] for f in of_set.values()])
        places = np.arange(len(values))[::-1]
        errors = np.abs(values[:, 1:] - values[:, :1]).T
        axes.errorbar(values[:, 0], places, xerr=errors, fmt="o", capsize=2)
        axes.axvline(values[0, 0], color="0.7", linestyle=":")
        axes.set_yticks(places, list(of_set), fontsize=8)
        axes.set(title=name, xlim=(min(0.45, values.min() - 0.02), 1.01))
    figure.axes[-1].set_xlabel("AUC")
    _save(figure, path)


def draw_all(sets: Sets, folder: Path) -> dict[str, Path]:
    """All three pictures, by title.

    Args:
        sets: at least one, none of them empty.
        folder: is made where it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {}
    for title, stem, draw in (
        ("ROC", "roc", plot_roc),
        ("Reliability", "reliability", plot_reliability),
        ("Probabilities", "probabilities", plot_histograms),
    ):
        drawn[title] = folder / f"{stem}.png"
        draw(sets, drawn[title])
    return drawn


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    # without the name of the program the same scores give the same bytes
    figure.savefig(path, dpi=110, metadata={"Software": None})


def plot_learning(points: Sequence[Mapping[str, Any]], source: str, path: Path) -> None:
    """Held-out accuracy and golden AUC of two schemes over the number of labelled items, as SVG.

    Args:
        points: each with `scheme` (`gated`, `naive`), `items`, `held_out` and `golden_auc`.
        source: that training had not seen.
        path: of the SVG.
    """
    figure = _figure(8.0, 3.4)
    panels = ((1, "held_out", f"accuracy on held-out {source}"), (2, "golden_auc", "AUC on the golden set"))
    for number, key, title in panels:
        axes = figure.add_subplot(1, 2, number)
        for scheme, style, name in (("gated", "o-", "golden-set gate"), ("naive", "s--", "last sample only")):
            chosen = [p for p in points if p["scheme"] == scheme]
            axes.plot([p["items"] for p in chosen], [p[key] for p in chosen], style, label=name)
        if key == "golden_auc":
            base = next(p[key] for p in points if p["items"] == 0)
            axes.axhline(base - 0.005, color="0.6", linestyle=":", label="bound of the gate")
        axes.set(xlabel="labelled items", title=title)
        axes.legend(fontsize="small")
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
