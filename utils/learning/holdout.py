"""What happens on a source that training never saw: leave one out, train the ViT's head on the rest, look at the one.

Every source of pictures is left out of training, early stopping and calibration in turn, its self-blends included. Its
validation pictures are then as new to the head as a stranger's. Only the head is trained again, because it takes a
minute on stored features; CNN, ResNeXt-50 and LSTM would take hours each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from models.vision_transformer import ViTExpert
from utils.errors import TrainingDataError
from utils.learning.experts import Progress, new_network, train_vit_head
from utils.learning.features import SelectedStore, Stored
from utils.learning.gate_fit import platt, sigmoid
from utils.learning.loop import Recipe
from utils.metrics import Figure, auc, bootstrap, false_alarm_rate

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class HeldOutSource:
    """How the head does on one source, seen and never seen.

    Args:
        source: the data set.
        real: number of its real validation pictures.
        fake: number of its fakes; 0 leaves the AUCs out.
        auc_known: AUC of the head that was trained with it.
        auc_unseen: AUC of the head that was trained without it.
        alarms_known: share of its real pictures above a probability of 50 %, trained with it.
        alarms_unseen: the same, trained and calibrated without it.
    """

    source: str
    real: int
    fake: int
    auc_known: Figure | None
    auc_unseen: Figure | None
    alarms_known: Figure
    alarms_unseen: Figure


def leave_one_source_out(
    train: Stored,
    calib: Stored,
    val: Stored,
    groups: Sequence[str],
    recipe: Recipe,
    folder: Path,
    *,
    tiny: bool = False,
    progress: Progress | None = None,
) -> list[HeldOutSource]:
    """Train the head once with all sources and once without each, and measure on the validation pictures.

    Args:
        train: views that heads are trained on.
        calib: views for early stopping and Platt scaling.
        val: views that are measured.
        groups: of the views of `val`, for the intervals.
        recipe: of the head.
        folder: for checkpoints.
        tiny: train the tiny variant.
        progress: for progress lines.

    Raises:
        TrainingDataError: there are not two sources.
    """
    sources = sorted({view.source for view in val.views})
    if len(sources) < 2:
        raise TrainingDataError("Leaving a source out needs validation pictures of two sources at least.")
    tokens = torch.from_numpy(np.asarray(val.load("tokens"), np.float32))
    labels = np.asarray(val.labels(), np.float64)
    of_source = np.array([view.source for view in val.views])
    names = np.asarray(groups)

    def probabilities(left_out: str) -> Array:
        """(N,) of all validation views, from a head and a calibration without one source."""
        kept, held = (
            SelectedStore(store, np.array([view.source != left_out for view in store.views]))
            for store in (train, calib)
        )
        expert = new_network("vit", tiny=tiny, seed=recipe.seed)
        if not isinstance(expert, ViTExpert):
            raise TypeError("the network `vit` must be a ViTExpert")
        name = f"without-{left_out}" if left_out else "all"
        train_vit_head(kept, held, recipe, folder / name, expert=expert, progress=progress)
        with torch.inference_mode():
            raw = expert.head(tokens).logit.double().numpy()
            own = expert.head(torch.from_numpy(np.asarray(held.load("tokens"), np.float32))).logit.double().numpy()
        wanted = np.asarray(held.labels(), np.float64)
        scale, shift = platt(own, wanted, _balanced(wanted))
        return sigmoid(scale * raw + shift)

    known = probabilities("")
    out = []
    for source in sources:
        chosen = of_source == source
        unseen = probabilities(source)[chosen]
        label, group = labels[chosen], names[chosen]
        both = len(np.unique(label)) == 2
        out.append(
            HeldOutSource(
                source=source,
                real=int((label == 0).sum()),
                fake=int((label == 1).sum()),
                auc_known=bootstrap(auc, label, known[chosen], group) if both else None,
                auc_unseen=bootstrap(auc, label, unseen, group) if both else None,
                alarms_known=bootstrap(false_alarm_rate, label, known[chosen], group),
                alarms_unseen=bootstrap(false_alarm_rate, label, unseen, group),
            )
        )
    return out


def holdout_markdown(rows: Sequence[HeldOutSource]) -> str:
    """The results as a table, one row per source."""

    def percent(figure: Figure) -> str:
        return f"{figure.value:.1%} [{figure.low:.1%}, {figure.high:.1%}]"

    def plain(figure: Figure | None) -> str:
        return "–" if figure is None else f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"

    lines = [
        "| source left out | real / fake | AUC, trained with it | AUC, never seen "
        "| false alarms at 50 %, trained with it | false alarms at 50 %, never seen |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.source} | {r.real} / {r.fake} | {plain(r.auc_known)} | {plain(r.auc_unseen)} "
        f"| {percent(r.alarms_known)} | {percent(r.alarms_unseen)} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def as_figures(rows: Sequence[HeldOutSource]) -> Mapping[str, Mapping[str, list[float] | None]]:
    """The results as plain JSON values, for the model card: value, low, high."""

    def values(figure: Figure | None) -> list[float] | None:
        return None if figure is None else [round(v, 4) for v in (figure.value, figure.low, figure.high)]

    return {
        r.source: {
            "auc_known": values(r.auc_known),
            "auc_unseen": values(r.auc_unseen),
            "false_alarms_known": values(r.alarms_known),
            "false_alarms_unseen": values(r.alarms_unseen),
        }
        for r in rows
    }


def _balanced(labels: Array) -> Array:
    share = labels.mean()
    return np.asarray(np.where(labels > 0.5, 0.5 / max(share, 1e-6), 0.5 / max(1 - share, 1e-6)))
