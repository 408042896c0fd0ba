"""How well do lips tell a clip's own sound from another's? The measure of `utils.detection.lips`, with intervals.

    python -m benchmarks.lips ../shared/data/video

Every clip with sound goes the way of a closer look. Its lips are compared with its own sound, with its own sound moved
by half its length, and with that of clips of other sources. Where `parts` is more than one, so many clips are joined:
the data holds three seconds of each. Intervals (95 %) are over the clips.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.common import run_command, tell
from utils.config import load_settings
from utils.detection.lips import FITS, MISFITS, WINDOWS, LipFit, Watched, correlations, interpret, watch_mouth
from utils.detection.pipeline import Analyser, examine, load_analyser
from utils.errors import MediaError, WeightsMissingError
from utils.metrics import auc
from utils.types import Floats

DRAWS, RESAMPLES = 2000, 300


@dataclass(frozen=True)
class Clip:
    """A clip with a face that speaks: what was seen of its mouth, and its samples at 16 kHz."""

    label: str
    source: str
    watched: Watched
    samples: Floats


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with manifest.csv (columns file, label, source, has_sound)")
    return run_command(parser, None, measure)


def measure(chosen: argparse.Namespace) -> int:
    """Print a table: for real and fake clips, how often each kind of sound is said to fit."""
    clips = list(read_clips(chosen.data, load_analyser(load_settings())))
    rng = np.random.default_rng(0)
    print("| lips of | parts | sound | AUC | fits | undecided | does not fit |\n|---|---|---|---|---|---|---|")
    for label in sorted({clip.label for clip in clips}):
        mine = [clip for clip in clips if clip.label == label]
        found = {
            kind: [correlations_with(clip, kind, clips) for clip in mine] for kind in ("own", "moved", "another's")
        }
        for parts in range(1, WINDOWS + 1):
            for kind, curves in found.items():
                scores, owns = (draw(of, parts, np.arange(len(mine)), DRAWS, rng) for of in (curves, found["own"]))
                areas = []
                for _ in range(RESAMPLES if kind != "own" else 0):
                    some = rng.choice(len(mine), len(mine))
                    areas.append(area(*(draw(of, parts, some, 200, rng) for of in (found["own"], curves))))
                low, high = np.quantile(areas, (0.025, 0.975)) if areas else (0, 0)
                told = f"{area(owns, scores):.2f} [{low:.2f}, {high:.2f}]" if areas else f"{len(mine)} clips"
                fits, misfits = (scores >= FITS[parts - 1]).mean(), (scores < MISFITS[parts - 1]).mean()
                print(
                    f"| {label} | {parts} | {kind} | {told} | {fits:.2f} | {1 - fits - misfits:.2f} | {misfits:.2f} |"
                )
    return 0


def correlations_with(clip: Clip, kind: str, clips: Sequence[Clip]) -> Floats:
    """Of a clip's lips with its own sound, that sound moved, or the sound of each clip of another source, (n, lags)."""
    sounds = {"own": [clip.samples], "moved": [np.roll(clip.samples, len(clip.samples) // 2)]}
    others = [np.resize(other.samples, len(clip.samples)) for other in clips if other.source != clip.source]
    return np.array([correlations(clip.watched, sound).mean(0) for sound in sounds.get(kind, others)])


def read_clips(folder: Path, analyser: Analyser) -> Iterator[Clip]:
    """The clips of a folder whose mouths can be read while somebody speaks; what is said of each is a progress line."""
    if analyser.speech is None:
        raise WeightsMissingError("There are no weights of speech.")
    for row in csv.DictReader((folder / "manifest.csv").read_text("utf-8").splitlines()):
        path = folder / row["file"]
        if row["has_sound"] != "1":
            continue
        try:
            people = examine(path, analyser, keep_pixels=True, keep_sound=True)
        except MediaError as error:
            tell(f"{path.name}: {error}")
            continue
        samples = people.media.samples
        if samples is None or not people.judged:
            tell(f"{path.name}: no sound or no face")
            continue
        spoken = analyser.speech.spoken(samples)
        watched = watch_mouth(path, analyser, people.judged[0].track, people.media, spoken)
        said = watched if isinstance(watched, LipFit) else interpret(watched.spans, correlations(watched, samples))
        tell(f"{path.name}: {said.code} {said.correlation} {said.lag_s}")
        if isinstance(watched, Watched) and said.correlation is not None:
            yield Clip(row["label"], row["source"], watched, samples)


def draw(curves: Sequence[Floats], parts: int, among: npt.ArrayLike, count: int, rng: np.random.Generator) -> Floats:
    """Highest correlations of so many clips of `parts` parts each, out of the correlations of each clip's sounds."""
    picked = rng.choice(np.asarray(among), (count, parts)).tolist()
    joined = np.mean([[curves[i][rng.integers(len(curves[i]))] for i in row] for row in picked], 1)
    return np.asarray(joined.max(-1))


def area(own: Floats, other: Floats) -> float:
    """Share of pairs in which the own sound fits better."""
    return auc(np.repeat([1, 0], (len(own), len(other))), np.concatenate([own, other]))


if __name__ == "__main__":
    raise SystemExit(main())
