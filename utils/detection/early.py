"""Early answer: ask one expert after the other, and stop when the rest cannot change the verdict any more.

The gate says between which values the answer lies whatever the experts not yet asked would say, each within the range
of what it said on data (`NumericGate.bounds`). Where both ends lead to the same verdict, the rest is skipped. Order and
ranges come from a check on data (`early_check.py`); without one that passed for the version in use, nothing is skipped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.cards import EXPERT_NAMES, MIN_SEQUENCE
from utils.detection.engine import LSTM_COLUMN, BatchedEngine, Engine, TrackScores
from utils.detection.gate import NumericGate
from utils.detection.unique_crops import distinct
from utils.detection.verdict import outcome_of, sigmoid
from utils.log import get_logger
from utils.types import Floats, Pixels
from utils.weights import Version

FORMAT = 1
FOLDER = "early"
MIN_ITEMS = 100
"""Media that a check must have judged to count; without a change among them, the share of changes is below 3.7 %."""
ROUNDING = 1e-4
"""The gate computes in float32, its bounds in float64; they are wider by so much, in logits."""
Band = tuple[float, float]
Range = tuple[float, float]

log = get_logger(__name__)


@dataclass(frozen=True)
class Plan:
    """Whom to ask first, and what the others may say.

    Args:
        order: all of `EXPERT_NAMES`, the LSTM behind ResNeXt-50, whose features it reads.
        ranges: the least and the greatest raw logit of each expert.

    Raises:
        ValueError: an expert is not there, twice or out of order, or a range is none.
    """

    order: tuple[str, ...]
    ranges: Mapping[str, Range]

    def __post_init__(self) -> None:
        if sorted(self.order) != sorted(EXPERT_NAMES) or set(self.ranges) != set(EXPERT_NAMES):
            raise ValueError("order and ranges must name every expert once")
        if self.order.index("lstm") < self.order.index("resnext"):
            raise ValueError("the LSTM reads the features of ResNeXt-50 and must come behind it")
        if not all(math.isfinite(low) and math.isfinite(high) and low <= high for low, high in self.ranges.values()):
            raise ValueError("a range must be two numbers in order")

    def bounds(self, gate: NumericGate, logits: Floats, present: Sequence[str], quality: Floats) -> tuple[float, float]:
        """Between which calibrated logits of fake the answer about one person lies.

        Args:
            gate: of the version.
            logits: (E,) raw ones, NaN where an expert has not been asked.
            present: experts that judge this person when all are asked.
            quality: (Q,) mean measurements.
        """
        ends = np.array([self.ranges[name] for name in EXPERT_NAMES], np.float32)  # (E, 2)
        low, high = (np.where(np.isnan(logits), end, logits)[None] for end in ends.T)
        there = np.array([[name in present for name in EXPERT_NAMES]])
        (least,), (most,) = gate.bounds(low, high, there, quality[None])
        return float(least) - ROUNDING, float(most) + ROUNDING


def is_settled(bounds: tuple[float, float], band: Band) -> bool:
    """Whether both ends of the bounds, and so all between, lead to the same verdict."""
    low, high = (outcome_of(sigmoid(end), band) for end in bounds)
    return low is high


def judging(loaded: Sequence[str], frames: int) -> tuple[str, ...]:
    """Which of the loaded experts judge a person that is seen in so many frames."""
    has_sequence = frames >= MIN_SEQUENCE and "resnext" in loaded
    return tuple(name for name in EXPERT_NAMES if name in loaded and (name != "lstm" or has_sequence))


class EarlyScorer:
    """Scores people by a plan.

    Args:
        engine: with the experts.
        plan: from a check that passed.
    """

    def __init__(self, engine: BatchedEngine, plan: Plan) -> None:
        self._engine, self._plan = engine, plan

    def score(
        self,
        tracks: Sequence[Sequence[Pixels]],
        quality: Sequence[Floats],
        bands: Sequence[Band],
        on_batch: Callable[[float], None] | None = None,
    ) -> list[TrackScores]:
        """As `Engine.score`, leaving out what cannot change a verdict; each expert sees the crops of all open people.

        Args:
            tracks: per person the (S, S, 3) uint8 crops in time order.
            quality: per person (T, Q) measurements of the crops.
            bands: per person the undecided band that the verdict will be made with.
            on_batch: told a share of the work that may be done, 0..1, after each batch.
        """
        crops, places = distinct([crop for track in tracks for crop in track])
        people = _people(tracks, quality, bands, places, tuple(self._engine.precisions))
        logits = np.full((len(crops), len(EXPERT_NAMES)), np.nan, np.float32)
        features: dict[int, Floats] = {}
        asked = [name for name in self._plan.order if name in self._engine.precisions]
        for turn, name in enumerate(asked):
            waiting = [one for one in people if name in one.present and one.bounds is None]
            if name == "lstm":
                for one in waiting:
                    one.sequence = self._engine.sequence_logit(np.stack([features[place] for place in one.places]))
            else:
                rows = sorted({place for one in waiting for place in one.places})
                for start in range(0, len(rows), self._engine.batch):
                    part = rows[start : start + self._engine.batch]
                    found, seen = self._engine.image_logits(np.stack([crops[row] for row in part]), (name,))
                    column = EXPERT_NAMES.index(name)
                    logits[part, column] = found[:, column]
                    features.update(() if seen is None else zip(part, seen, strict=True))
                    if on_batch is not None:
                        on_batch((turn + min(1.0, (start + self._engine.batch) / len(rows))) / len(asked))
            for one in waiting:
                self._close(one, logits, last=set(one.present) <= set(asked[: turn + 1]))
        return [self._result(one, logits) for one in people]

    def _close(self, one: _Person, logits: Floats, *, last: bool) -> None:
        """Note the bounds of a person whose verdict is settled before everybody has been asked."""
        if last:
            return
        whole = logits[one.places].mean(0)
        whole[LSTM_COLUMN] = one.sequence
        bounds = self._plan.bounds(self._engine.gate, whole, one.present, one.quality.mean(0))
        if is_settled(bounds, one.band):
            one.bounds = bounds

    def _result(self, one: _Person, logits: Floats) -> TrackScores:
        of_track = logits[one.places]
        if one.bounds is not None:  # a crop that is also another person's may have been seen by more experts
            of_track = np.where(np.isnan(of_track).any(0), np.float32(np.nan), of_track)
        mixed = self._engine.mix(of_track, one.sequence, one.quality)
        skipped = tuple(n for n in one.present if np.isnan(mixed.expert_logits[EXPERT_NAMES.index(n)]))
        if one.bounds is None or not skipped:
            return mixed
        # the middle of what is possible: no expert's word is made up, and the full answer is at most half the way off
        return TrackScores(
            sum(one.bounds) / 2, mixed.weights, mixed.expert_logits, mixed.frame_logits, skipped, one.bounds
        )


@dataclass
class _Person:
    """One track on its way through the experts; `bounds` are set once its verdict is settled."""

    places: list[int]
    quality: Floats
    band: Band
    present: tuple[str, ...]
    sequence: float = float("nan")
    bounds: tuple[float, float] | None = None


def _people(
    tracks: Sequence[Sequence[Pixels]],
    quality: Sequence[Floats],
    bands: Sequence[Band],
    places: list[int],
    loaded: tuple[str, ...],
) -> list[_Person]:
    people, start = [], 0
    for track, measured, band in zip(tracks, quality, bands, strict=True):
        people.append(_Person(places[start : start + len(track)], measured, band, judging(loaded, len(track))))
        start += len(track)
    return people


def finding_file(root: Path, version: Version) -> Path:
    """Where the finding of the check about a version stands."""
    return root / FOLDER / f"{version.name}.json"


def read_plan(path: Path, version: Version) -> Plan:
    """The plan of a check that passed.

    Args:
        path: from `finding_file`.
        version: verified.

    Raises:
        ValueError: there is no finding, it is of another version or not whole, or a verdict was changed; the text
            says which, as a sentence.
    """
    try:
        finding: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if finding["format"] != FORMAT or finding["version_sha256"] != version.sha256:
            raise ValueError(f"The check on file is not of these weights of {version.name}.")
        changed, items = int(finding["changed"]), int(finding["items"])
        plan = Plan(
            tuple(map(str, finding["order"])),
            {str(name): (float(low), float(high)) for name, (low, high) in finding["ranges"].items()},
        )
    except FileNotFoundError as error:
        raise ValueError(f"It has not been checked on data for {version.name}.") from error
    except (OSError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"The file of its check cannot be read: {error!r}.") from error
    if changed or items < MIN_ITEMS:
        raise ValueError(f"Its check changed {changed} verdicts among {items} media; {MIN_ITEMS} media are needed.")
    return plan


def load_early(setting: str, root: Path, version: Version, engine: Engine) -> EarlyScorer | None:
    """The early answer for a version, where the setting wants it and its check has passed.

    Args:
        setting: [detection] early_answer.
        root: the folder with the versions.
        version: verified.
        engine: that scores.
    """
    if setting != "on" or not isinstance(engine, BatchedEngine):
        return None
    try:
        return EarlyScorer(engine, read_plan(finding_file(root, version), version))
    except ValueError as error:
        log.warning(
            "[detection] early_answer stays off: %s `python -m utils.detection.early_check DATA` checks it.", error
        )
        return None
