"""Check on data whether the early answer changes a verdict, in which order it pays most, and what it saves.

`python -m utils.detection.early_check DATA` analyses pictures and clips with all experts and again with the early
answer, and writes `early/NAME.json` into the folder of weights, where `early.py` reads it. Each half of the media is
judged by the ranges of the other half, so that none is judged by what it has itself contributed. The file holds two
numbers per expert and counts, nothing of a single picture.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from models.cards import EXPERT_NAMES, MIN_SEQUENCE
from utils.config import load_settings
from utils.detection.cli_files import collect_files
from utils.detection.early import (
    FORMAT,
    MIN_ITEMS,
    Band,
    EarlyScorer,
    Plan,
    Range,
    finding_file,
    is_settled,
    judging,
)
from utils.detection.engine import BatchedEngine
from utils.detection.pipeline import Analyser, Seen, conclude, load_analyser, score, see, undecided_band
from utils.detection.precision import format_precisions
from utils.detection.verdict import outcome_of, sigmoid
from utils.errors import MediaError, TelltaleError, TrainingDataError
from utils.metrics import clopper_pearson
from utils.types import Floats
from utils.weights import verify_current, weights_root

MARGIN = 0.25
"""Ranges reach so much further than what was seen, as a share of their width, at both ends."""
LEAST_FOR_RANGE = 20
"""An expert that judged fewer people has no range: it is always asked before an answer is given."""
UNKNOWN: Range = (-1e4, 1e4)
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""The user's thresholds at which no verdict may change."""
REPEATS = 9


@dataclass(frozen=True)
class Judged:
    """One person with all experts' words.

    Args:
        logits: (E,) raw, NaN where an expert does not judge this person.
        quality: (Q,) mean measurements.
        present: experts that judge.
        crops: how many.
        bands: the undecided band at each of `THRESHOLDS`, and last that of the configuration.
    """

    logits: Floats
    quality: Floats
    present: tuple[str, ...]
    crops: int
    bands: tuple[Band, ...]


Medium = tuple[Seen, tuple[Judged, ...]]


def orders() -> list[tuple[str, ...]]:
    """Every order in which the experts can be asked."""
    every = itertools.permutations(EXPERT_NAMES)
    return [order for order in every if order.index("resnext") < order.index("lstm")]


def judge_all(seen: Seen, analyser: Analyser, engine: BatchedEngine) -> tuple[Judged, ...]:
    """All experts' raw words about every person in a medium."""
    calibration, missing = analyser.calibration, analyser.missing
    configured = undecided_band(seen.media, analyser)
    photo = seen.media.info.duration_s is None
    count = sum(not (name == "lstm" and photo) for name in missing)
    bands = (*(calibration.band(threshold, count) for threshold in THRESHOLDS), configured)
    out = []
    for crops, quality in zip(seen.crops, seen.quality, strict=True):
        whole = engine.raw_logits(np.stack([crop.pixels for crop in crops]))
        present = judging(tuple(engine.precisions), len(crops))
        out.append(Judged(whole, quality.mean(0), present, len(crops), bands))
    return tuple(out)


def ranges_of(people: Sequence[Judged]) -> dict[str, Range]:
    """Between which raw logits each expert's words lie, with `MARGIN`."""
    found: dict[str, Range] = dict.fromkeys(EXPERT_NAMES, UNKNOWN)
    for column, name in enumerate(EXPERT_NAMES):
        said = [float(one.logits[column]) for one in people if name in one.present]
        if len(said) >= LEAST_FOR_RANGE:
            more = MARGIN * (max(said) - min(said))
            found[name] = (round(min(said) - more, 4), round(max(said) + more, 4))
    return found


def simulate(one: Judged, plan: Plan, engine: BatchedEngine, costs: Mapping[str, float]) -> tuple[float, int]:
    """What asking one person's experts by a plan costs in milliseconds, and how many verdicts it changes.

    A verdict counts as changed at each threshold at which some stage would settle on another one.
    """
    full = float(engine.gate.mix(one.logits[None], one.quality[None]).logit[0])
    order = [name for name in plan.order if name in one.present]
    known = np.full(len(EXPERT_NAMES), np.nan, np.float32)
    spent, open_still, changed = 0.0, True, set()
    for name in order[:-1]:
        known[EXPERT_NAMES.index(name)] = one.logits[EXPERT_NAMES.index(name)]
        spent += _cost(name, one, costs) if open_still else 0.0
        bounds = plan.bounds(engine.gate, known, one.present, one.quality)
        for place, band in enumerate(one.bands):
            if is_settled(bounds, band) and outcome_of(sigmoid(bounds[0]), band) is not outcome_of(sigmoid(full), band):
                changed.add(place)
        open_still = open_still and not is_settled(bounds, one.bands[-1])
    return spent + (_cost(order[-1], one, costs) if open_still else 0.0), len(changed)


def _cost(name: str, one: Judged, costs: Mapping[str, float]) -> float:
    return costs[name] * (1 if name == "lstm" else one.crops)


def measure_costs(engine: BatchedEngine, seen: Sequence[Seen]) -> dict[str, float]:
    """Median milliseconds of each loaded expert: of an image expert per crop, of the LSTM per person."""
    crop = np.stack([next(one.crops[0][0].pixels for one in seen if one.crops)])
    costs = dict.fromkeys(EXPERT_NAMES, 0.0)
    features = engine.image_logits(crop)[1]
    work: dict[str, Callable[[], object]] = {
        name: partial(engine.image_logits, crop, (name,)) for name in engine.precisions if name != "lstm"
    }
    if "lstm" in engine.precisions and features is not None:
        sequence = np.repeat(features, 4 * MIN_SEQUENCE, axis=0)
        work["lstm"] = partial(engine.sequence_logit, sequence)
    for name, run in work.items():
        costs[name] = round(statistics.median(_timed(run) for _ in range(REPEATS + 1)), 3)
    return costs


def _timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - started)


def check(media: Sequence[Medium], analyser: Analyser, engine: BatchedEngine) -> dict[str, Any]:
    """Choose an order, compare every verdict with and without the early answer, and say what was found.

    Args:
        media: at least two, with somebody in one of them.
        analyser: of the version.
        engine: of the analyser.
    """
    people = [[one for _, judged in media[half::2] for one in judged] for half in (0, 1)]
    ranges = [ranges_of(of_half) for of_half in people]
    costs = measure_costs(engine, [seen for seen, _ in media])
    crossed = [(one, ranges[1 - half]) for half in (0, 1) for one in people[half]]
    totals = {}
    for order in orders():
        found = [simulate(one, Plan(order, other), engine, costs) for one, other in crossed]
        totals[order] = sum(spent for spent, _ in found), sum(changed for _, changed in found)
    order = min(totals, key=lambda o: totals[o][0])
    whole = sum(_cost(name, one, costs) for one, _ in crossed for name in one.present)
    scorers = [EarlyScorer(engine, Plan(order, ranges[1 - half])) for half in (0, 1)]
    ms: dict[str, list[float]] = {"full": [], "early": []}
    verdicts, early_ones, skipped = 0, 0, dict.fromkeys(EXPERT_NAMES, 0)
    for number, (seen, judged) in enumerate(media):
        if not judged:
            continue
        reports = {}
        for name in ("full", "early") if number % 4 < 2 else ("early", "full"):
            with_early = dataclasses.replace(analyser, early=scorers[number % 2] if name == "early" else None)
            started = time.perf_counter()
            scores = score([seen], with_early)[0][0]
            ms[name].append(1000 * (time.perf_counter() - started))
            reports[name] = conclude(seen, scores, with_early, 0.0)
        verdicts += reports["full"].verdict.outcome is not reports["early"].verdict.outcome
        left_out = [e.name for face in reports["early"].faces for e in face.experts if e.skipped]
        early_ones += bool(left_out)
        for name in left_out:
            skipped[name] += 1
    return {
        "order": order,
        "ranges": ranges_of([*people[0], *people[1]]),
        "items": len(ms["full"]),
        "clips": sum(bool(judged) and seen.media.info.duration_s is not None for seen, judged in media),
        "changed": verdicts + totals[order][1],
        "answered_early": early_ones,
        "skipped": skipped,
        "costs_ms": costs,
        "cost_by_order": {" ".join(o): round(spent / whole, 4) for o, (spent, _) in totals.items()},
        "networks_ms": {name: round(statistics.mean(values), 2) for name, values in ms.items()},
    }


def look_at(files: Sequence[Path], analyser: Analyser, engine: BatchedEngine) -> list[Medium]:
    """Decode files, find their people and ask all experts; what cannot be decoded is left out.

    Raises:
        TrainingDataError: nobody was found in any of them.
    """
    media: list[Medium] = []
    for number, path in enumerate(files):
        try:
            seen = see(path, analyser, lambda stage, done: None)
        except MediaError as error:
            print(f"{path.name} is left out: {error}", file=sys.stderr)
            continue
        media.append((seen, judge_all(seen, analyser, engine)))
        if (number + 1) % 50 == 0:
            print(f"{number + 1} of {len(files)} files looked at", file=sys.stderr)
    if sum(bool(judged) for _, judged in media) < 2:
        raise TrainingDataError("The check needs files with faces in them.")
    return media


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the version in use; 0 where it passed, 1 where a verdict was changed or it cannot be checked."""
    parser = argparse.ArgumentParser(prog="utils.detection.early_check", description=__doc__)
    parser.add_argument("data", nargs="+", help="pictures and clips, or folders with them; best the validation data")
    parser.add_argument("--items", type=int, default=300, help="so many of them, drawn at random")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    given = parser.parse_args(arguments)
    settings = load_settings()
    try:
        root, version = weights_root(settings), verify_current(settings)
        off = dataclasses.replace(settings.detection, early_answer="off", experts="all")
        analyser = load_analyser(dataclasses.replace(settings, detection=off))
        engine = analyser.engine
        if not isinstance(engine, BatchedEngine):
            raise TrainingDataError("This engine cannot ask its experts one by one.")
        files = sorted(collect_files(given.data).files)
        random.Random(8).shuffle(files)  # noqa: S311 (not for secrets)
        found = check(look_at(files[: given.items], analyser, engine), analyser, engine)
    except TelltaleError as error:
        print(error, file=sys.stderr)
        return 1
    document = {
        "format": FORMAT, "version": version.name, "version_sha256": version.sha256,
        "engine": engine.name, "precision": format_precisions(engine.precisions), **found,
    }  # fmt: skip
    print("\n".join(describe(document)))
    if not given.dry:
        target = finding_file(root, version)
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 1 if found["changed"] or found["items"] < MIN_ITEMS else 0


def describe(found: Mapping[str, Any]) -> list[str]:
    """What a check found, in sentences."""
    items, changed, ms = found["items"], found["changed"], found["networks_ms"]
    limit = clopper_pearson(min(changed, items), items)[1]
    lines = [
        f"{items} media with faces ({found['clips']} clips), judged by {found['engine']} ({found['precision']}).",
        f"Changed verdicts: {changed} (by the 95 % bound at most {limit:.1%} of such media).",
        f"Asked in the order {', '.join(found['order'])}: {found['answered_early']} answered early "
        f"({found['answered_early'] / items:.0%}); skipped: "
        + ", ".join(f"{name} {count}" for name, count in found["skipped"].items()) + ".",
        f"Networks: {ms['full']} ms a medium with all experts, {ms['early']} ms early "
        f"({1 - ms['early'] / ms['full']:.1%} saved).",
    ]  # fmt: skip
    best = sorted(found["cost_by_order"].items(), key=lambda entry: entry[1])
    lines += [f"Cost of asking {order}: {share:.1%} of asking all." for order, share in (best[0], best[-1])]
    if changed:
        lines.append("The early answer stays off with this version.")
    elif items < MIN_ITEMS:
        lines.append(f"That is too few to switch it on: {MIN_ITEMS} are needed.")
    return lines


if __name__ == "__main__":
    sys.exit(main())
