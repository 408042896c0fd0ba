"""Pictures of a score file for the documentation: ROC, reliability diagram, histogram of the probabilities.

Drawn without a display; each function writes one PNG from labels and probabilities per set.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from utils.metrics import auc, clopper_pearson

Array = npt.NDArray[np.float64]
Sets = Mapping[str, tuple[Array, Array]]
"""Labels (N,) and probabilities (N,) per set."""

BINS = 10
OUTCOMES = ("real", "inconclusive", "fake", "no_face", "failed")
"""Order of the verdicts in tables and plots."""


def reliability_points(labels: Array, probabilities: Array) -> list[tuple[float, float, float, float]]:
    """Per bin (equally full): mean probability, share of fakes, and the 95 % interval of that share."""
    order = np.argsort(probabilities, kind="stable")
    points = []
    for part in np.array_split(order, min(BINS, len(order))):
        fakes = int((labels[part] > 0.5).sum())
        points.append((float(probabilities[part].mean()), fakes / len(part), *clopper_pearson(fakes, len(part))))
    return points


def plot_roc(sets: Sets, path: Path) -> None:
    """One curve per set that has both classes."""
    figure = new_figure(5.2, 5.0)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.7", linestyle=":")
    for name, (labels, probabilities) in sets.items():
        if 0 < labels.mean() < 1:
            alarms, hits, _ = roc_curve(labels, probabilities, drop_intermediate=False)
            axes.plot(alarms, hits, label=f"{name} (AUC {auc(labels, probabilities):.3f})")
    axes.set(xlabel="false alarms among real ones", ylabel="fakes found", xlim=(0, 1), ylim=(0, 1.01), title="ROC")
    if len(axes.lines) > 1:
        axes.legend(loc="lower right", fontsize="small")
    save_png(figure, path)


def plot_reliability(sets: Sets, path: Path) -> None:
    """Stated probability against observed share of fakes, for each set that has both classes."""
    figure = new_figure(5.2, 5.0)
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
    save_png(figure, path)


def plot_histograms(sets: Sets, path: Path) -> None:
    """Probabilities of the real and of the fake ones, one panel per set."""
    figure = new_figure(6.4, 1.0 + 1.5 * len(sets))
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
    save_png(figure, path)


def plot_confusion(counts: Mapping[str, Mapping[str, Mapping[str, int]]], path: Path) -> None:
    """Which verdict the real and the fake ones of each set got, as one panel per set.

    Args:
        counts: per set and label (`real`, `fake`) the number of each outcome.
    """
    outcomes = [
        o for o in OUTCOMES if any(of_label.get(o) for labels in counts.values() for of_label in labels.values())
    ]
    columns = min(3, len(counts))
    rows = -(-len(counts) // columns)
    figure = new_figure(3.0 * columns, 0.6 + 1.5 * rows)
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
    save_png(figure, path)


def draw_all(sets: Sets, folder: Path) -> dict[str, Path]:
    """All three pictures, by title.

    Args:
        sets: at least one, none of them empty.
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


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_png(figure: Figure, path: Path) -> None:
    """Write it without the name of the program, so that the same scores give the same bytes."""
    figure.savefig(path, dpi=110, metadata={"Software": None})
