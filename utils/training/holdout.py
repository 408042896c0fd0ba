"""What happens on what training never saw: leave one out, train the ViT's head on the rest, look at the one.

Every source of pictures, every generator and, of clips, every family of generators is left out of training, early
stopping and calibration in turn; with a source its self-blends, with a generator only its own fakes. What is measured
is then as new to the head as a stranger's. Only the head is trained again, because it takes a minute on stored
features; CNN, ResNeXt-50 and LSTM would take hours each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from models.cards import EXPERT_NAMES
from models.gating import Gate
from utils.detection.calibration import Calibration, fit_calibration
from utils.errors import TrainingDataError
from utils.evaluation.datasets import family_of, is_of
from utils.evaluation.score_file import ScoreTable
from utils.metrics import Figure, auc, bootstrap, ece, false_alarm_rate
from utils.training.broad import head_logits
from utils.training.crop_set import PackedCrop
from utils.training.experts import new_vit, train_vit_head
from utils.training.features import Features, Stored
from utils.training.gate_fit import gate_logits, platt, sigmoid
from utils.training.loop import Recipe
from utils.training.views import View

Array = npt.NDArray[np.float64]
SOURCE, GENERATOR, FAMILY = "source", "generator", "family"
MIN_FAKES = 5
"""Generators and families with fewer validation fakes are not left out: the figure would say nothing."""
LEAST = 8
"""Sources with fewer real or fake validation pictures, and generators with fewer, have no row in `stranger_rows`."""
ROUNDS = 300


@dataclass(frozen=True)
class LeftOut:
    """How the head does on something, seen and never seen.

    Args:
        kind: `source` or `generator` of pictures, or `family` of clips.
        name: of it.
        real: number of real validation items beside which it is measured: those of the same sources.
        fake: number of its fakes; 0 leaves the AUCs out.
        auc_known: AUC of the head that was trained with it.
        auc_unseen: AUC of the head that was trained without it.
        ece_unseen: calibration error of that head's probabilities; None without fakes, like the AUCs.
        alarms_known: share of those real items above a probability of 50 %, trained with it.
        alarms_unseen: the same, trained and calibrated without it.
        called_fake: share of those real items that the verdict calls fake, trained and calibrated without it.
        undecided: share of them that it leaves inconclusive.
        called_real: share of its fakes that the verdict calls real; None without fakes.
    """

    kind: str
    name: str
    real: int
    fake: int
    auc_known: Figure | None
    auc_unseen: Figure | None
    ece_unseen: Figure | None
    alarms_known: Figure
    alarms_unseen: Figure
    called_fake: Figure
    undecided: Figure
    called_real: Figure | None


@dataclass(frozen=True)
class _Items:
    """Validation items, pictures or clips: tokens of each of their frames, and what they are."""

    tokens: tuple[npt.NDArray[np.float32], ...]
    rows: tuple[PackedCrop, ...]

    def select(self, keep: Sequence[bool]) -> _Items:
        chosen = [i for i, kept in enumerate(keep) if kept]
        return _Items(tuple(self.tokens[i] for i in chosen), tuple(self.rows[i] for i in chosen))

    @property
    def labels(self) -> Array:
        return np.array([row.label for row in self.rows], np.float64)


@dataclass(frozen=True)
class _Scorer:
    """A trained head with its calibration: items to probabilities. `band`: what it decides, see `Calibration`."""

    head: torch.nn.Module
    scale: float
    shift: float
    band: tuple[float, float]

    def __call__(self, items: _Items) -> Array:
        with torch.inference_mode():
            raw = [float(self.head(torch.from_numpy(frames)).logit.double().mean()) for frames in items.tokens]
        return sigmoid(self.scale * np.array(raw) + self.shift)


def leave_out_each(
    train: Stored,
    calib: Stored,
    val: Stored,
    clips: Stored | None,
    rows: Sequence[PackedCrop],
    recipe: Recipe,
    folder: Path,
    *,
    tiny: bool = False,
    rounds: int = 1000,
) -> list[LeftOut]:
    """Train the head once with everything and once without each source, generator and family, and measure.

    What is the only one of its class cannot be left out and is passed over.

    Args:
        train: views that heads are trained on.
        calib: views for early stopping and Platt scaling.
        val: pictures that are measured.
        clips: clips that are measured, frame by frame; None where there are none.
        rows: of the pack; what the views are of.
        recipe: of the head.
        folder: for checkpoints.
        tiny: train the tiny variant.
        rounds: of the bootstrap.

    Raises:
        TrainingDataError: there are not two sources, or not two classes.
    """
    pictures = _items(val, rows)
    of_clips = _items(clips, rows) if clips is not None else _Items((), ())
    if len({row.source for row in pictures.rows}) < 2:
        raise TrainingDataError("Leaving a source out needs validation pictures of two sources at least.")

    def trained_without(name: str) -> _Scorer | None:
        kept, held = (
            Features([store], np.array([not (name and _is_of(name, view, rows)) for view in store.views]))
            for store in (train, calib)
        )
        if any(len(np.unique(store.labels())) < 2 for store in (kept, held)):
            return None
        expert = new_vit(tiny=tiny, seed=recipe.seed)
        folder_name = f"without-{name.replace('/', '-')}" if name else "all"
        train_vit_head(kept, held, recipe, folder / folder_name, expert=expert)
        own = head_logits(expert, held)
        wanted = np.asarray(held.labels(), np.float64)
        scale, shift = platt(own, wanted, _balanced(wanted))
        said = [rows[view.row].source for view in held.views]
        calibration = fit_calibration(wanted, sigmoid(scale * own + shift), said, {})
        return _Scorer(expert.head, scale, shift, calibration.band(0.5, missing=0))

    known = trained_without("")
    if known is None:
        raise TrainingDataError("Training and calibration need real and fake pictures.")
    out = []
    for kind, name, items in _cases(pictures, of_clips):
        without = trained_without(name)
        if without is None:  # it is all there is of one class
            continue
        groups = [row.group for row in items.rows]
        seen, unseen = known(items), without(items)
        out.append(_measured(kind, name, items.labels, seen, unseen, groups, without.band, rounds))
    return out


def _measured(
    kind: str, name: str, labels: Array, known: Array, unseen: Array, groups: Sequence[str], band: tuple[float, float],
    rounds: int,
) -> LeftOut:  # fmt: skip
    """The row of something, from probabilities with and without it; `band`: what is called neither."""
    real_below, fake_above = band
    measure = partial(bootstrap, labels=labels, groups=groups, rounds=rounds)
    both = len(np.unique(labels)) == 2
    return LeftOut(
        kind=kind,
        name=name,
        real=int((labels == 0).sum()),
        fake=int((labels == 1).sum()),
        auc_known=measure(auc, scores=known) if both else None,
        auc_unseen=measure(auc, scores=unseen) if both else None,
        ece_unseen=measure(ece, scores=unseen) if both else None,
        alarms_known=measure(false_alarm_rate, scores=known),
        alarms_unseen=measure(false_alarm_rate, scores=unseen),
        called_fake=measure(partial(false_alarm_rate, threshold=fake_above), scores=unseen),
        undecided=measure(partial(share_between, low=real_below, high=fake_above), scores=unseen),
        called_real=measure(partial(share_missed, at=real_below), scores=unseen) if both else None,
    )


def share_between(labels: Array, probabilities: Array, low: float, high: float) -> float:
    """Share of the real ones that lie inside the undecided band; NaN without real ones."""
    real = probabilities[labels <= 0.5]
    return float(((real > low) & (real < high)).mean()) if len(real) else float("nan")


def share_missed(labels: Array, probabilities: Array, at: float) -> float:
    """Share of the fakes at or below a probability; NaN without fakes."""
    fakes = probabilities[labels > 0.5]
    return float((fakes <= at).mean()) if len(fakes) else float("nan")


def _cases(pictures: _Items, clips: _Items) -> list[tuple[str, str, _Items]]:
    """What is left out, and the validation items that it is measured on."""
    cases = [
        (SOURCE, source, pictures.select([row.source == source for row in pictures.rows]))
        for source in sorted({row.source for row in pictures.rows})
    ]
    for generator in sorted({row.generator for row in pictures.rows if row.label}):
        beside = {row.source for row in pictures.rows if row.generator == generator}
        keep = [row.generator == generator or (not row.label and row.source in beside) for row in pictures.rows]
        cases.append((GENERATOR, generator, pictures.select(keep)))
    for family in sorted({family_of(row.generator) for row in clips.rows if row.label}):
        keep = [not row.label or family_of(row.generator) == family for row in clips.rows]
        cases.append((FAMILY, family, clips.select(keep)))
    return [
        (kind, name, items)
        for kind, name, items in cases
        if kind == SOURCE or (items.labels.sum() >= MIN_FAKES and not items.labels.all())
    ]


def _is_of(name: str, view: View, rows: Sequence[PackedCrop]) -> bool:
    """Whether a view shows what is left out; a self-blend is of its crop's source and of no generator but its own."""
    return is_of(name, rows[view.row].source, view.generator)


def _items(store: Stored, rows: Sequence[PackedCrop]) -> _Items:
    """Pictures one by one, the frames of a clip together."""
    tokens = np.asarray(store.load("tokens"), np.float32)
    numbers: dict[str, list[int]] = {}
    for number, view in enumerate(store.views):
        numbers.setdefault(rows[view.row].file, []).append(number)
    firsts = tuple(rows[store.views[own[0]].row] for own in numbers.values())
    return _Items(tuple(tokens[own] for own in numbers.values()), firsts)


def with_vit(table: ScoreTable, logits: Array) -> ScoreTable:
    """The table with other logits of the ViT, where they are known."""
    raw, column = table.logits.copy(), EXPERT_NAMES.index("vit")
    raw[:, column] = np.where(np.isnan(logits), raw[:, column], logits)
    return ScoreTable(
        table.names, table.kinds, table.labels, table.sources, table.generators, table.groups, raw, table.quality
    )


def stranger_rows(
    val: ScoreTable, by_source: Array, by_generator: Mapping[str, Array], gate: Gate, calibration: Calibration
) -> list[LeftOut]:
    """What users get of sources and generators that no training has seen: one row per source, and per generator.

    Each validation picture is scored by a ViT head that has not seen its source, or its generator; gate, calibration
    and band are those of the version, which come from such scores of other pictures.
    Sources of fakes alone are measured beside all real pictures.

    Args:
        val: scores of the validation pictures by the version.
        by_source: (N,) the ViT's logits by heads that have not seen the picture's source.
        by_generator: for each generator (N,) logits of a head that has not seen it.
        gate: of the version.
        calibration: of the version.
    """

    def probabilities(logits: Array) -> Array:
        return sigmoid(gate_logits(gate, with_vit(val, logits)))

    known, unseen = sigmoid(gate_logits(gate, val)), probabilities(by_source)
    sources, generators, real = np.asarray(val.sources), np.asarray(val.generators), val.labels <= 0.5
    cases: list[tuple[str, str, npt.NDArray[np.bool_], Array]] = []
    for source in np.unique(sources):
        fakes, reals = (sources == source) & ~real, (sources == source) & real
        if reals.sum() < LEAST:
            reals = real if fakes.sum() >= LEAST else np.zeros(len(real), bool)
        cases.append((SOURCE, str(source), reals | fakes, unseen))
    for generator, logits in sorted(by_generator.items()):
        fakes = generators == generator
        beside = real & np.isin(sources, np.unique(sources[fakes]))
        cases.append(
            (
                GENERATOR,
                generator,
                fakes | (beside if beside.sum() >= LEAST else real),
                probabilities(logits),
            )
        )
    groups, band = np.asarray(val.groups), calibration.band(0.5, missing=0)
    return [
        _measured(
            kind,
            name,
            val.labels[chosen],
            known[chosen],
            scores[chosen],
            groups[chosen].tolist(),
            band,
            ROUNDS,
        )
        for kind, name, chosen, scores in cases
        if max((chosen & ~real).sum(), (kind == SOURCE) * (chosen & real).sum()) >= LEAST
    ]


def holdout_markdown(rows: Sequence[LeftOut]) -> str:
    """The results as a table, one row per source, generator and family."""

    def percent(figure: Figure | None) -> str:
        if figure is None or np.isnan(figure.value):
            return "–"
        return f"{figure.value:.1%} [{figure.low:.1%}, {figure.high:.1%}]"

    def plain(figure: Figure | None) -> str:
        return "–" if figure is None else f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"

    lines = [
        "| left out | real / fake | AUC, trained with it | AUC, never seen | ECE, never seen "
        "| false alarms at 50 %, trained with it | false alarms at 50 %, never seen "
        "| called fake, never seen | inconclusive, never seen | fakes called real, never seen |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.kind} {r.name} | {r.real} / {r.fake} | {plain(r.auc_known)} | {plain(r.auc_unseen)} "
        f"| {plain(r.ece_unseen)} | {percent(r.alarms_known)} | {percent(r.alarms_unseen)} "
        f"| {percent(r.called_fake)} | {percent(r.undecided)} | {percent(r.called_real)} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def as_figures(rows: Sequence[LeftOut]) -> Mapping[str, Mapping[str, list[float] | None]]:
    """The results as plain JSON values, for the model card: value, low, high."""

    def values(figure: Figure | None) -> list[float] | None:
        if figure is None or np.isnan(figure.value):
            return None
        return [round(v, 4) for v in (figure.value, figure.low, figure.high)]

    return {
        r.name if r.kind == SOURCE else f"{r.kind} {r.name}": {
            "auc_known": values(r.auc_known),
            "auc_unseen": values(r.auc_unseen),
            "ece_unseen": values(r.ece_unseen),
            "false_alarms_known": values(r.alarms_known),
            "false_alarms_unseen": values(r.alarms_unseen),
            "called_fake_unseen": values(r.called_fake),
            "undecided_unseen": values(r.undecided),
            "called_real_unseen": values(r.called_real),
        }
        for r in rows
    }


def _balanced(labels: Array) -> Array:
    share = labels.mean()
    return np.asarray(np.where(labels > 0.5, 0.5 / max(share, 1e-6), 0.5 / max(1 - share, 1e-6)))
