"""The leak audit: can a probe tell the labels of training views without seeing the face?

Views are drawn as training draws them, each fold of people by itself, and a linear and a boosted probe try to tell real
from fake from the rim, its coding, the sizes of face and picture, or eight trivial statistics of the whole view. What
they can tell, a network can learn instead of faces: their AUC must stay within .45 to .55. Ordinary processing, drawn
without the label, is left out: it would only make the probes' work harder, and turn rims away from where they are
looked for. Beside these stand the views that the ViT's head learns from, processed or as they come, as often as they
count there.

    python -m benchmarks.leak_audit --data FOLDER [--recipe FILE] [--views 2400] [--packs DIR] [--out FILE]
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.common import run_command, tell
from utils.config import load_settings
from utils.evaluation.scorecard import markdown_table
from utils.faces.crops import CROP_PX, CROP_SCALE, reframe_window
from utils.metrics import Figure, auc, bootstrap
from utils.training.augment import draw_framing
from utils.training.blending import face_hull
from utils.training.crop_set import Pack, PackedCrop
from utils.training.planning import TrainingPlan, head_weights, plan_balanced, planned, read_plan, some_frames
from utils.training.views import View, render
from utils.types import Floats, MediaKind, Pixels

Array = npt.NDArray[np.float64]
LOW, HIGH = 0.45, 0.55
FOLDS = 4
PROBES = ("rim", "coding of the rim", "sizes", "statistics")
LEAST = 40
"""Real and fake crops that a source must have for an audit of its own."""


RIM = 1.35
"""The rim is what lies outside the outline of the face, so many times enlarged: beyond most of a blend's soft edge."""
THUMB = 12
"""Side of the small picture of the rim that a probe sees."""


@dataclass(frozen=True)
class Finding:
    """What one probe can tell of one recipe."""

    recipe: str
    probe: str
    views: int
    linear: Figure
    boosted: Figure

    @property
    def passes(self) -> bool:
        """Both probes stay within the bounds."""
        return all(LOW <= figure.value <= HIGH for figure in (self.linear, self.boosted))

    @property
    def certain(self) -> bool:
        """A failure of a probe whose interval lies outside the bounds as a whole."""
        return any(figure.low > HIGH or figure.high < LOW for figure in (self.linear, self.boosted))


def recipes(pack: Pack, count: int, plan: TrainingPlan, *, seed: int = 0) -> dict[str, list[View]]:
    """The views of each recipe of training batches, by name; about `count` of whole batches and of each large source.

    Fakes beside the real crops of their source where both are many, self-blends beside real crops of all sources, and
    whole batches of pictures and of clips' frames. Last what the ViT's head learns from, drawn by its weight there.
    """
    pictures, frames = pack.select("train", MediaKind.IMAGE), some_frames(pack, plan.frames_per_clip, seed)
    large = [s for s in sorted({r.source for r in pictures}) if _fewer(r for r in pictures if r.source == s) >= LEAST]
    out: dict[str, list[View]] = {}
    for fold in range(FOLDS):
        # every fold is drawn by itself: one balanced with the others would be told from what they lack
        own, share = 100 * seed + 10 * fold, count // FOLDS
        here, clips = ([row for row in rows if fold_of(row.group) == fold] for rows in (pictures, frames))
        real = [row for row in here if not row.label]
        drawn = {
            "whole batches": plan_balanced(here, share, seed=own, h264=plan.h264),
            "whole batches, clips": plan_balanced(clips, share, seed=own + 1, h264=plan.h264_clips, most=2),
            "self-blends": [
                view
                for blended in (False, True)
                for view in plan_balanced(real, share // 2, seed=own + 2, h264=plan.h264, blended=blended)
            ],
        }
        for source in large:
            drawn[source] = plan_balanced([row for row in here if row.source == source], share, seed=own + 3)
        for name, views in drawn.items():
            out.setdefault(name, []).extend(replace(view, processed=False) for view in views)
    stores = planned(pack, plan)
    every = [view for name in stores if name.startswith("train") for view in stores[name]]
    odds = head_weights(every, pack.rows).astype(np.float64)
    chosen = np.random.default_rng(seed).choice(len(every), min(count, len(every)), replace=False, p=odds / odds.sum())
    out["all that the head learns"] = [every[int(i)] for i in chosen]
    return {name: views for name, views in out.items() if len({view.label for view in views}) == 2}


def _fewer(rows: Iterator[PackedCrop]) -> int:
    """The number of crops of the rarer class."""
    labels = [row.label for row in rows]
    return min(labels.count(0), labels.count(1))


def fold_of(group: str) -> int:
    """The fold of a group, 0 to `FOLDS` - 1: the same in every draw."""
    return int(hashlib.sha256(f"audit {group}".encode()).hexdigest(), 16) % FOLDS


def face_outline(pack: Pack, view: View) -> Floats:
    """The outline of the face in a rendered view, (12, 2) pixels of the view."""
    held = pack.rows[view.row]
    scale, flipped = (CROP_SCALE, False) if view.clean else draw_framing(np.random.default_rng(view.seed))
    x0, y0, side = reframe_window(pack.pixels.shape[1], held.face_box(), scale)
    outline = (face_hull(held.marks()) - np.array([x0, y0], np.float32)) * np.float32(CROP_PX / side)
    if flipped:
        outline[:, 0] = CROP_PX - 1 - outline[:, 0]
    return outline


def rim_mask(pack: Pack, view: View) -> npt.NDArray[np.bool_]:
    """(CROP_PX, CROP_PX) where the rim is: everything outside the enlarged outline of the face."""
    outline = face_outline(pack, view)
    centre = outline.mean(0)
    mask = np.ones((CROP_PX, CROP_PX), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(centre + RIM * (outline - centre)).astype(np.int32)), 0)
    return mask.astype(bool)


def rim_features(pixels: Pixels, rim: npt.NDArray[np.bool_]) -> Array:
    """A small picture of the rim with its mean in place of the face, and simple statistics of it."""
    values = pixels.astype(np.float32)
    if not rim.any():
        return np.zeros(3 * THUMB**2 + 18)
    chosen = values[rim]
    mean = chosen.mean(0)
    hidden = np.where(rim[..., None], values, mean)
    thumb = cv2.resize(hidden, (THUMB, THUMB), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    inner = cv2.erode(rim.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    inner = inner if inner.any() else rim
    residual = np.abs(grey - cv2.GaussianBlur(grey, (0, 0), 1.0))[inner]
    edges = np.abs(cv2.Laplacian(grey, cv2.CV_32F))[inner]
    spread = chosen.max(1) - chosen.min(1)
    statistics = np.concatenate(
        [
            mean, chosen.std(0), np.percentile(chosen, [5, 50, 95], axis=0).ravel(),
            [np.log1p(residual.mean()), np.log1p(edges.mean()), spread.mean()],
        ]
    )  # fmt: skip
    return np.concatenate([thumb.ravel(), statistics]).astype(np.float64)


def size_features(source_px: float, picture_px: int) -> Array:
    """The face and the shorter side of its picture in pixels, and their ratio."""
    sides = np.log([max(source_px, 1.0), max(picture_px, 1)])
    return np.concatenate([sides, [source_px / max(picture_px, 1)]])


def coding_features(pixels: Pixels, rim: npt.NDArray[np.bool_]) -> Array:
    """What the rim of a view tells of its coding: steps at each of eight block phases, and the spread of its DCT."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    phases = []
    for axis in (0, 1):
        steps = np.abs(np.diff(grey, axis=axis))
        both = rim[1:] & rim[:-1] if axis == 0 else rim[:, 1:] & rim[:, :-1]
        lines = np.arange(steps.shape[axis]) % 8
        for phase in range(8):
            taken = np.take(steps, np.flatnonzero(lines == phase), axis)
            seen = np.take(both, np.flatnonzero(lines == phase), axis)
            phases.append(float(taken[seen].mean()) if seen.any() else 0.0)
    level = max(float(np.mean(phases)), 1e-3)
    blocks = [
        cv2.dct(grey[y : y + 8, x : x + 8] - 128)
        for y in range(0, grey.shape[0] - 7, 8)
        for x in range(0, grey.shape[1] - 7, 8)
        if rim[y : y + 8, x : x + 8].all()
    ]
    if not blocks:
        return np.concatenate([np.array(phases) / level, np.zeros(128)])
    stacked = np.abs(np.stack(blocks)).reshape(len(blocks), 64)
    flat = [np.log1p(stacked.mean(0)), (stacked < 1.0).mean(0)]
    return np.concatenate([np.array(phases) / level, *flat]).astype(np.float64)


def statistics(pixels: Pixels) -> Array:
    """Light, contrast, colour and its spread, sharpness, noise, bytes as a JPEG, steps at the borders of its blocks."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    colour = pixels.max(2).astype(np.float32) - pixels.min(2)
    noise = np.abs(grey - cv2.GaussianBlur(grey, (0, 0), 1.0)).mean()
    steps = np.abs(np.diff(grey, axis=1)).mean(0)
    size = len(cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 75])[1])
    sharpness = cv2.Laplacian(grey, cv2.CV_32F).var()
    shares = [grey.mean(), grey.std(), colour.mean(), colour.std(), steps[7::8].mean() / max(steps.mean(), 1e-3)]
    return np.array([*shares, *np.log1p([sharpness, noise, size])], np.float64)


def features_of(pack: Pack, views: Sequence[View]) -> dict[str, Array]:
    """What each probe sees of the views: (N, F) by the name of the probe."""
    out: dict[str, list[Array]] = {name: [] for name in PROBES}
    for view in views:
        held, seen, rim = pack.rows[view.row], render(pack, view), rim_mask(pack, view)
        out["rim"].append(rim_features(seen, rim))
        out["coding of the rim"].append(coding_features(seen, rim))
        out["sizes"].append(size_features(held.source_px, held.picture_px))
        out["statistics"].append(statistics(seen))
    return {name: np.stack(values) for name, values in out.items()}


def probe(features: Array, labels: Array, groups: Sequence[str], *, rounds: int = 300) -> tuple[Figure, Figure]:
    """AUC of a logistic regression and of boosted trees, each view scored by models that never saw its group.

    Args:
        labels: (N,) with both classes.
    """
    folds = np.array([fold_of(group) for group in groups])
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300, class_weight="balanced"))
    boosted = HistGradientBoostingClassifier(max_iter=40, max_bins=32, max_depth=3, min_samples_leaf=20, random_state=0)
    figures = []
    for model in (linear, boosted):
        scores = np.zeros(len(labels))
        for fold in np.unique(folds):
            inside, outside = folds != fold, folds == fold
            if len(np.unique(labels[inside])) < 2:
                scores[outside] = 0.5
                continue
            raw = model.fit(features[inside], labels[inside]).predict_proba(features[outside])[:, 1]
            # as ranks: the models of two folds differ in their offset, and by it more than by what they can tell
            scores[outside] = rankdata(raw) / len(raw)
        figures.append(bootstrap(auc, labels, scores, groups, rounds=rounds))
    return figures[0], figures[1]


def audit(pack: Pack, views: Sequence[View], recipe: str, *, rounds: int = 300) -> list[Finding]:
    """Every probe on some views; nothing where all are of one group."""
    labels = np.array([view.label for view in views], np.float64)
    groups = [pack.rows[view.row].group for view in views]
    if len({fold_of(group) for group in groups}) < 2:
        return []
    return [
        Finding(recipe, name, len(views), *probe(features, labels, groups, rounds=rounds))
        for name, features in features_of(pack, views).items()
    ]


def audit_markdown(findings: Sequence[Finding], what: str, notes: str = "") -> str:
    """The report: a row for each recipe and probe, and what fails."""
    failed = [finding for finding in findings if not finding.passes]
    found = {(f.recipe, f.probe): f for f in findings}
    names = dict.fromkeys(f.recipe for f in findings)
    rows = [[name, *(_cell(found.get((name, probe))) for probe in PROBES)] for name in names]
    lines = [
        "# Leak audit",
        "",
        f"Made by `python -m benchmarks.leak_audit`: {what}",
        "A logistic regression and boosted trees try to tell real from fake without seeing the face, on groups that",
        f"they have not seen. Both AUCs (linear, boosted) must lie within {LOW:.2f} to {HIGH:.2f}. **Bold**: one does",
        "not; with an asterisk, its 95 % interval by bootstrap over groups reaches into the bounds.",
        f"{len(failed)} of {len(findings)} fail, {sum(f.certain for f in failed)} of them surely.",
        "",
        *markdown_table(("recipe", *PROBES), rows),
    ]
    return "\n".join([*lines, *(["", notes.strip()] if notes else [])]) + "\n"


def _cell(finding: Finding | None) -> str:
    if finding is None:
        return "—"
    text = f"{finding.linear.value:.2f}, {finding.boosted.value:.2f}"
    return text if finding.passes else f"**{text}**" + ("" if finding.certain else " *")


def failures(findings: Sequence[Finding]) -> Mapping[str, list[str]]:
    """Probes that fail surely, by recipe."""
    out: dict[str, list[str]] = {}
    for finding in findings:
        if finding.certain:
            out.setdefault(finding.recipe, []).append(finding.probe)
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.leak_audit`; exit code 1 when a recipe fails surely, 3 when the data cannot be used."""
    parser = argparse.ArgumentParser(description="Can labels of training views be told without seeing the face?")
    parser.add_argument("--data", type=Path, required=True, help="manifests, or real/ and fake/")
    parser.add_argument("--recipe", type=Path, help="the training's TOML file")
    parser.add_argument("--views", type=int, default=2400, help="about so many views of each recipe")
    parser.add_argument("--packs", type=Path, default=Path("runs/audit/pack"), help="folder of the face crops")
    parser.add_argument("--notes", type=Path, help="what the report ends with, in Markdown")
    parser.add_argument("--out", type=Path, default=Path("docs/results/leak_audit.md"), help="the report to write")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    return run_command(parser, arguments, _audit)


def _audit(chosen: argparse.Namespace) -> int:
    from utils.base_weights import FACE_FILE, ensure_base_weights
    from utils.evaluation.datasets import read_samples
    from utils.faces.detector import CenterFaceDetector
    from utils.training.crop_set import pack_faces
    from utils.weights import weights_root

    base = weights_root(load_settings()) / "base"
    ensure_base_weights(base)
    pack = pack_faces(read_samples(chosen.data), chosen.packs, CenterFaceDetector(base / FACE_FILE))
    findings: list[Finding] = []
    plan = read_plan(chosen.recipe) if chosen.recipe else TrainingPlan()
    for name, views in recipes(pack, chosen.views, plan, seed=chosen.seed).items():
        findings += audit(pack, views, name)
        tell(f"{name}: {len(views)} views")
    what = f"about {chosen.views} views of each recipe from the training split of `{chosen.data.name}`."
    notes = chosen.notes.read_text(encoding="utf-8") if chosen.notes else ""
    chosen.out.write_text(audit_markdown(findings, what, notes), encoding="utf-8")
    print(chosen.out.read_text(encoding="utf-8"))
    return 1 if failures(findings) else 0


if __name__ == "__main__":
    sys.exit(main())
