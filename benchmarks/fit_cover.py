"""Fit the probe of covers (`utils/detection/face_report.py`) anew, and tell what it makes of other faces.

    python -m benchmarks.fit_cover --data FOLDER [--out utils/detection/cover.safetensors]

`FOLDER` holds pictures with a `manifest.csv` whose `note` names what is worn: sunglasses, a face mask, a hand. The
probe is fitted on the split `train`: on faces as they come and with other uncovered parts of faces put over, against
worn covers, those put over other faces, and drawn ones (`covers.py`). Its threshold keeps `MOST_UNCOVERED` of the
uncovered faces below it, sources left out in turn. On the split `val` it is only measured.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression

from benchmarks.common import run_command, tell
from benchmarks.covers import DRAWN, Array, drawn, taken_over
from utils.config import load_settings
from utils.detection.face_report import COVER
from utils.detection.pipeline import Analyser, load_analyser
from utils.errors import TelltaleError, TrainingDataError
from utils.faces.crops import FaceCrop, crop_for_networks
from utils.files import file_sha256
from utils.media.images import decode_image
from utils.media.limits import MediaLimits
from utils.training.augment import augment

WORN = {"trap: sunglasses": "eyes", "trap: face mask": "mouth", "trap: hand": "mouth"}
"""What a note may say, and the part of the face that lies below it."""
UNSURE = ("trap: hat",)
"""Faces that are neither: a hat may cover or not."""
MOST_UNCOVERED = 0.015
WORN_VIEWS, TAKEN_VIEWS, CONTROLS, MOST_VIEWS = 8, 12, 500, 1500
SHARES = {"plain": 0.25, "control": 0.25, "drawn": 0.25, "worn": 0.15, "taken": 0.10}
"""Of the weight of all faces."""
STRENGTHS = (1e-4, 1e-3, 1e-2)
LAYER = 3


@dataclass(frozen=True)
class Row:
    """A face: what is over it, and the ViT's tokens of its crop, (L, 2D)."""

    kind: str
    source: str
    label: str
    what: str
    tokens: Array


@dataclass(frozen=True)
class Picture:
    """A face that is cut out, and what the manifest says of it."""

    source: str
    label: str
    note: str
    crop: FaceCrop

    @property
    def worn(self) -> str | None:
        """What is worn over the face; None for nothing."""
        return next((word for word in WORN if word in self.note), None)


def read_pictures(root: Path, split: str, analyser: Analyser, most: int, rng: np.random.Generator) -> list[Picture]:
    """Faces of a split: all with something worn, of each other source about the square root, `most` in all."""
    with (root / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == split]
    rows = [row for row in rows if not any(word in row.get("note", "") for word in UNSURE)]
    worn = [row for row in rows if any(word in row["note"] for word in WORN)]
    plain = [row for row in rows if row not in worn]
    sizes: dict[str, int] = {}
    for row in plain:
        sizes[row["source"]] = sizes.get(row["source"], 0) + 1
    odds = np.array([sizes[row["source"]] ** -0.5 for row in plain])
    drawn_rows = rng.choice(len(plain), min(most, len(plain)), replace=False, p=odds / odds.sum())
    pictures = []
    for row in [*worn, *(plain[i] for i in drawn_rows)]:
        pixels = decode_image(root / row["file"], MediaLimits())[0].pixels
        if faces := analyser.detector.detect(pixels):
            crop = crop_for_networks(pixels, faces[0])
            pictures.append(Picture(row["source"], row["label"], row["note"], crop))
    if not any(p.worn for p in pictures):
        raise TrainingDataError(f"In {root}/manifest.csv no note of the split {split} names one of {', '.join(WORN)}.")
    return pictures


def views(pictures: Sequence[Picture], rng: np.random.Generator) -> Iterator[tuple[str, Picture, str, Array]]:
    """Kind, picture, what is over it, and pixels of everything that is learned."""
    plain, worn = [p for p in pictures if not p.worn], [p for p in pictures if p.worn]
    kinds = list(DRAWN)
    for picture in plain:
        crop = picture.crop
        yield "plain", picture, "", crop.pixels
        kind = kinds[rng.integers(len(kinds))]
        yield "drawn", picture, kind, drawn(kind, crop.pixels, crop.landmarks, rng)
    for picture in worn:
        what = picture.worn or ""
        yield "worn", picture, what, picture.crop.pixels
        for _ in range(WORN_VIEWS):
            yield "worn", picture, what, augment(picture.crop.pixels, picture.crop.box, rng)
        for _ in range(TAKEN_VIEWS if "sun" in what else TAKEN_VIEWS // 4):
            on = plain[rng.integers(len(plain))]
            yield "taken", on, what, _over(on, picture, WORN[what], rng)
    for _ in range(CONTROLS):
        on, other = (plain[rng.integers(len(plain))] for _ in range(2))
        yield "control", on, "", augment(on.crop.pixels, on.crop.box, rng)
        yield "control", on, "", _over(on, other, str(rng.choice(["eyes", "mouth"])), rng)


def _over(on: Picture, other: Picture, part: str, rng: np.random.Generator) -> Array:
    mine, theirs = on.crop, other.crop
    return taken_over(mine.pixels, mine.landmarks, theirs.pixels, theirs.landmarks, part, rng)


def read_tokens(found: Sequence[tuple[str, Picture, str, Array]], analyser: Analyser) -> list[Row]:
    """The tokens of all views."""
    rows = []
    for low in range(0, len(found), 256):
        part = found[low : low + 256]
        tokens = analyser.engine.run([pixels for *_, pixels in part], only={"vit"}).tokens
        if tokens is None:
            raise TelltaleError("The version has no ViT, whose tokens the probe reads.")
        kept = zip(part, tokens[:, LAYER].astype(np.float32), strict=True)
        rows += [Row(kind, p.source, p.label, what, own) for (kind, p, what, _), own in kept]
        tell(f"{low + len(part)} of {len(found)}")
    return rows


def fit(rows: Sequence[Row], strength: float) -> tuple[Array, float]:
    """Weights of the layer's tokens and an offset, as raw logits."""
    tokens = np.stack([row.tokens for row in rows])
    kinds, sources = np.array([row.kind for row in rows]), np.array([row.source for row in rows])
    weights = np.zeros(len(rows))
    for kind, share in SHARES.items():
        own = np.flatnonzero(kinds == kind)
        if kind == "plain":
            weights[own] = [np.sum(sources[own] == source) ** -0.5 for source in sources[own]]
        elif kind in ("worn", "taken"):
            whats = np.array([rows[int(i)].what for i in own])
            weights[own] = [1 / np.sum(whats == what) for what in whats]
        else:
            weights[own] = 1.0
        weights[own] *= share * len(rows) / weights[own].sum()
    mean, spread = tokens.mean(0), tokens.std(0) + 1e-4
    covered = ~np.isin(kinds, ("plain", "control"))
    model = LogisticRegression(C=strength, max_iter=400).fit((tokens - mean) / spread, covered, sample_weight=weights)
    weight = model.coef_[0] / spread
    return weight, float(model.intercept_[0] - mean @ weight)


def left_out(rows: Sequence[Row], strength: float, rng: np.random.Generator) -> Array:
    """Logit of each row by a probe that was fitted on other sources."""
    sources = sorted({row.source for row in rows})
    fold_of = dict(zip(sources, rng.permutation(len(sources)) % 4, strict=True))
    folds = np.array([fold_of[row.source] for row in rows])
    logits = np.zeros(len(rows))
    for fold in range(4):
        weight, bias = fit([row for row, of in zip(rows, folds, strict=True) if of != fold], strength)
        own = np.flatnonzero(folds == fold)
        logits[own] = np.stack([rows[int(i)].tokens for i in own]) @ weight + bias
    return logits


def shares(rows: Sequence[Row], over: Array) -> dict[str, str]:
    """How many of each kind count as covered."""
    counts: dict[str, list[bool]] = {}
    for row, is_over in zip(rows, over, strict=True):
        name = f"{row.kind} {row.what or row.label}"
        counts.setdefault(name, []).append(bool(is_over))
    return {name: f"{sum(own)} of {len(own)}" for name, own in sorted(counts.items())}


def _work(chosen: argparse.Namespace) -> int:
    rng = np.random.default_rng(7)
    analyser = load_analyser(load_settings())
    rows = read_tokens(list(views(read_pictures(chosen.data, "train", analyser, MOST_VIEWS, rng), rng)), analyser)
    best = None
    for strength in STRENGTHS:
        logits = left_out(rows, strength, np.random.default_rng(1))
        plain = np.array([row.kind == "plain" for row in rows])
        edge = float(np.quantile(logits[plain], 1 - MOST_UNCOVERED))
        worn = np.array([row.kind == "worn" for row in rows])
        found = float(np.mean([np.mean(logits[worn & [r.what == w for r in rows]] > edge) for w in WORN]))
        tell(json.dumps({"strength": strength, "edge": round(edge, 3), **shares(rows, logits > edge)}))
        best = max(best or (0.0, 0.0, 0.0), (found, strength, edge))
    _, strength, edge = best or (0.0, 0.0, 0.0)
    weight, bias = fit(rows, strength)
    held = read_pictures(chosen.data, "val", analyser, chosen.check, rng)
    told = read_tokens([("worn" if p.worn else "plain", p, p.worn or "", p.crop.pixels) for p in held], analyser)
    over = np.stack([row.tokens for row in told]) @ weight + bias > edge
    print(json.dumps({"strength": strength, **shares(told, over)}, indent=1))
    layers = np.zeros((LAYER + 1, len(weight)), np.float32)
    layers[LAYER] = weight
    save_file({"weight": layers, "bias": np.array([bias - edge], np.float32)}, chosen.out)
    print(f"{chosen.out}: the sha256 of COVER in utils/detection/face_report.py is now {file_sha256(chosen.out)}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Fit the probe of covers, and measure it on faces kept back.")
    parser.add_argument("--data", type=Path, required=True, help="a folder of pictures with manifest.csv")
    parser.add_argument("--out", type=Path, default=COVER.path, help="the file that is written")
    parser.add_argument("--check", type=int, default=3000, help="uncovered faces of the split val at most")
    return run_command(parser, arguments, _work)


if __name__ == "__main__":
    sys.exit(main())
