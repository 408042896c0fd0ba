"""What the model page shows: the served version's card, as rows and words that a template can print.

The card is written by the training and travels with the weights; a part that it does not have is left out of the page.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.cards import EXPERT_NAMES, expert_card
from utils.config import Settings
from utils.weights import CARD_FILE, current_name, read_document, weights_root
from web_app.texts import catalogue, text

NONE = "–"
JOINED = ("clips", "pictures")  # sets of the scorecard that join several sources


@dataclass(frozen=True)
class ScoreRow:
    """One validation set: how many, and the figures as texts with their 95 % intervals."""

    name: str
    real: int
    fake: int
    auc: str
    decided: str
    false_alarms: str
    called_fake: str
    misses: str


@dataclass(frozen=True)
class UnseenRow:
    """One source that was left out of a training: figures of a network that had seen it, and of one that had not."""

    name: str
    auc_known: str
    auc_unseen: str
    called_fake_unseen: str
    undecided_unseen: str
    called_real_unseen: str


@dataclass(frozen=True)
class SourceRow:
    """How many faces of one source taught the version, and how many calibrated it."""

    name: str
    train_real: int
    train_fake: int
    calib_real: int
    calib_fake: int


@dataclass(frozen=True)
class ExpertRow:
    """One network, and its own AUC per validation set."""

    title: str
    looks_at: str
    source: str
    licence: str
    aucs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ModelView:
    """Everything on the model page."""

    version: str
    made: str
    intended_use: str
    notes: tuple[str, ...]
    terms: tuple[str, ...]
    scores: tuple[ScoreRow, ...]
    unseen: tuple[UnseenRow, ...]
    sources: tuple[SourceRow, ...]
    experts: tuple[ExpertRow, ...]
    engine: str


def read_model(settings: Settings, workers: Sequence[Mapping[str, Any]] = ()) -> ModelView:
    """The served version's card, and what it is computed with.

    Args:
        settings: name the version.
        workers: what the living ones say of themselves.

    Raises:
        WeightsError: no version is chosen, or its card cannot be read.
    """
    root = weights_root(settings)
    name = settings.weights.version or current_name(root)
    card = read_document(root / name / CARD_FILE)
    validation = _mapping(card, "validation")
    data = _mapping(card, "data")
    return ModelView(
        version=name,
        made=str(card.get("made", NONE)),
        intended_use=str(card.get("intended_use", "")),
        notes=tuple(map(str, card.get("notes", ()))),
        terms=tuple(map(str, data.get("terms", ()))),
        scores=tuple(_score_row(key, validation[key]) for key in sorted(validation, key=_joined_last)),
        unseen=tuple(_unseen_row(*item) for item in sorted(_mapping(card, "validation_of_unseen_sources").items())),
        sources=_source_rows(_mapping(data, "crops")),
        experts=tuple(_expert_row(key, expert, validation) for key, expert in _mapping(card, "experts").items()),
        engine=engine_sentence(next((w for w in workers if w.get("model_version") == name), {})),
    )


def engine_sentence(worker: Mapping[str, Any]) -> str:
    """Which engine a worker computes with, and each network's precision; empty before it says so."""
    precisions = _mapping(worker, "precisions")
    if not precisions or "engine" not in worker:
        return ""
    named = [f"{expert_card(key).title if key in EXPERT_NAMES else key} {value}" for key, value in precisions.items()]
    return str(text("model.engine", engine=worker["engine"], networks=", ".join(named)))


def percent(figure: Sequence[float] | float | None) -> str:
    """A share with its interval in per cent: `3.4 % (0.9 to 7.3)`; a dash for none."""
    if figure is None:
        return NONE
    if isinstance(figure, int | float):
        return f"{100 * figure:.0f}\u00a0%"
    value, low, high = figure
    return f"{100 * value:.1f}\u00a0% ({100 * low:.1f} to {100 * high:.1f})"


def decimal(figure: Sequence[float] | None) -> str:
    """A figure such as an AUC with its interval: `.892 (.849 to .932)`; a dash for none."""
    if figure is None:
        return NONE
    value, low, high = (f"{part:.3f}".removeprefix("0") for part in figure)
    return f"{value} ({low} to {high})"


def _clips_last(item: tuple[str, object]) -> tuple[bool, str]:
    return item[0].startswith("video:"), item[0]


def _joined_last(name: str) -> tuple[bool, str]:
    return name in JOINED, name


def _set_title(name: str) -> str:
    """A set or source in words where the catalogue has them; `video:x` is the clips of source x."""
    source = name.removeprefix("video:")
    title = str(text(f"model.sets.{source}")) if source in catalogue()["model"]["sets"] else source
    return title if source == name else str(text("model.clips_of", source=title))


def _score_row(name: str, figures: Mapping[str, Any]) -> ScoreRow:
    return ScoreRow(
        name=_set_title(name),
        real=int(figures.get("real", 0)),
        fake=int(figures.get("fake", 0)),
        auc=decimal(figures.get("auc")),
        decided=percent(figures.get("coverage")),
        false_alarms=percent(figures.get("false_alarms")),
        called_fake=percent(figures.get("false_alarms_decided")),
        misses=percent(figures.get("misses")),
    )


def _unseen_row(name: str, figures: Mapping[str, Any]) -> UnseenRow:
    return UnseenRow(
        name=_set_title(name),
        auc_known=decimal(figures.get("auc_known")),
        auc_unseen=decimal(figures.get("auc_unseen")),
        called_fake_unseen=percent(figures.get("called_fake_unseen")),
        undecided_unseen=percent(figures.get("undecided_unseen")),
        called_real_unseen=percent(figures.get("called_real_unseen")),
    )


def _source_rows(crops: Mapping[str, Any]) -> tuple[SourceRow, ...]:
    """From keys such as `train dfdc fake`."""
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for key, count in crops.items():
        parts = key.split(" ")
        if len(parts) == 3:
            split, source, label = parts
            counts[source][f"{split}_{label}"] = int(count)
    columns = ("train_real", "train_fake", "calib_real", "calib_fake")
    return tuple(
        SourceRow(_set_title(source), *(found.get(column, 0) for column in columns))
        for source, found in sorted(counts.items(), key=_clips_last)
    )


def _expert_row(name: str, expert: Mapping[str, Any], validation: Mapping[str, Any]) -> ExpertRow:
    aucs = [
        (_set_title(key), decimal(figures["experts"][name]))
        for key, figures in validation.items()
        if name in figures.get("experts", {})
    ]
    return ExpertRow(
        title=str(expert.get("title", name)),
        looks_at=str(expert.get("looks_at", NONE)),
        source=str(expert.get("source", NONE)),
        licence=str(expert.get("licence", NONE)),
        aucs=tuple(aucs),
    )


def _mapping(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = document.get(key)
    return found if isinstance(found, Mapping) else {}
