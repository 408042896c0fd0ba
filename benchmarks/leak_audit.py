"""The leak audit: can a probe tell the labels of a training batch without seeing the face?

Every recipe of training views is drawn as training draws it, plainly and matched (`plan_views(matched=True)`), and a
linear and a boosted probe try to tell real from fake from the rim, the file's size, the quantisation or the picture's
size alone. Whatever they can tell, a network can learn instead of faces. Their AUC must stay within .45 to .55.

    python -m benchmarks.leak_audit --data FOLDER [--per-class 300] [--packs DIR] [--out docs/results/leak_audit.md]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.common import markdown_table, run_command, tell
from benchmarks.shortcut_features import (
    coding_features,
    file_facts,
    picture_features,
    quantisation_features,
    rim_features,
    rim_mask,
    size_features,
)
from utils.config import load_settings
from utils.metrics import Figure, auc, bootstrap
from utils.training.crop_set import PORTRAITS_FOLDER, REDRAWN_FOLDER, Pack, PackedCrop
from utils.training.face_swap import plan_swaps
from utils.training.norms import rendered, some_frames
from utils.training.portraits import plan_portraits, stored_portraits
from utils.training.super_resolution import plan_redrawn, stored_crops
from utils.training.views import View, plan_views, shuffled_sources
from utils.types import MediaKind

Array = npt.NDArray[np.float64]
LOW, HIGH = 0.45, 0.55
FOLDS = 4
PROBES = ("rim", "file size", "quantisation", "coding of the rim", "picture size")
PLAIN, MATCHED = "plain", "matched"
FORM = 2
"""Raised when recipes are drawn in another way, so that kept findings of the old way are not taken up."""
FRAMES = 4
"""Frames of each clip that are audited."""


@dataclass(frozen=True)
class Finding:
    """What one probe can tell of one recipe."""

    recipe: str
    draw: str
    probe: str
    views: int
    linear: Figure
    boosted: Figure

    @property
    def worst(self) -> Figure:
        """The figure of the probe that is further from chance."""
        return max((self.linear, self.boosted), key=lambda f: abs(f.value - 0.5))

    @property
    def passes(self) -> bool:
        """Both probes stay within the bounds."""
        return all(LOW <= figure.value <= HIGH for figure in (self.linear, self.boosted))

    @property
    def certain(self) -> bool:
        """A failure whose interval lies outside the bounds as a whole."""
        return not self.passes and (self.worst.low > HIGH or self.worst.high < LOW)


def recipes(pack: Pack, per_class: int, *, matched: bool, seed: int = 0) -> dict[str, list[View]]:
    """The views of each recipe of training batches, by name.

    Native fakes beside the real ones of their source, self-blends beside real crops of theirs, faces redrawn, swapped
    or taken from a drawn portrait beside their originals, clips by their frames likewise, and whole batches: everything
    together in the counts that training draws.

    Args:
        pack: its training split is audited.
        per_class: most views per source and label.
        matched: see `plan_views`.
        seed: of the draw.
    """
    out: dict[str, list[View]] = {}
    everything, clips = pack.select("train", MediaKind.IMAGE), some_frames(pack, FRAMES, seed)
    share = max(1, per_class // FOLDS)
    for fold in range(FOLDS):
        # every fold is drawn by itself: one matched with the others would be told from what they lack
        pictures = [row for row in everything if fold_of(row.group) == fold]
        frames = [row for row in clips if fold_of(row.group) == fold]
        rows, own = [*pictures, *frames], 100 * seed + 10 * fold
        if matched:  # pairs of one crop: there is no other draw of them
            for name, views in _drawn_recipes(pack, rows, share, own).items():
                out.setdefault(name, []).extend(views)
        for name, views in _recipes_of(pictures, frames, share, matched=matched, seed=own).items():
            out.setdefault(name, []).extend(views)
    return {name: views for name, views in out.items() if len({view.label for view in views}) == 2}


def _drawn_recipes(pack: Pack, rows: Sequence[PackedCrop], share: int, seed: int) -> dict[str, list[View]]:
    """Faces that were drawn or swapped, `share` of each source; whole crops that were drawn are told by their rim."""

    def some(drawn: Mapping[int, object], own: int) -> list[PackedCrop]:
        rng = np.random.default_rng([own, 1])
        held = (row for row in rows if row.row in drawn)
        return [row for of_source in shuffled_sources(held, rng) for row in of_source[:share]]

    return {
        "redrawn faces": plan_redrawn(pack, some(pack.redrawn, seed + 4), seed=seed + 4, faces=1.0),
        "faces of portraits": plan_portraits(
            pack, some(pack.portraits, seed + 5), seed=seed + 5, swaps=1.0, whole=False
        ),
        "swapped faces": plan_swaps(pack, rows, share, seed=seed + 6),
    }


def fold_of(group: str) -> int:
    """The fold of a group, 0 to `FOLDS` - 1: the same in every draw."""
    return int(hashlib.sha256(f"audit {group}".encode()).hexdigest(), 16) % FOLDS


def _recipes_of(
    pictures: Sequence[PackedCrop], frames: Sequence[PackedCrop], per_class: int, *, matched: bool, seed: int
) -> dict[str, list[View]]:
    out: dict[str, list[View]] = {}
    parts = {source: [r for r in pictures if r.source == source] for source in sorted({r.source for r in pictures})}
    for name, own in (parts | {"clips": list(frames)}).items():
        if {row.label for row in own} == {0, 1}:
            out[f"native, {name}"] = plan_views(own, per_class=per_class, blends=0, seed=seed + 1, matched=matched)
        real = [row for row in own if row.label == 0]
        if real:
            planned = plan_views(real, per_class=per_class, blends=per_class, seed=seed + 2, matched=matched)
            out[f"self-blends, {name}"] = planned
    blends = max(1, per_class // 4)
    for name, rows, coded in (("whole batches", pictures, 0.3), ("whole batches, clips", frames, 0.7)):
        if {row.label for row in rows} != {0, 1}:
            continue
        out[name] = plan_views(rows, per_class=per_class, blends=blends, seed=seed + 3, matched=matched, h264=coded)
    return out


def features_of(pack: Pack, views: Sequence[View]) -> dict[str, Array]:
    """What each probe sees of the views: (N, F) by the name of the probe."""
    out: dict[str, list[Array]] = {name: [] for name in PROBES}
    parts = [views[low : low + 32] for low in range(0, len(views), 32)]
    for part, pixels in rendered(pack, parts):
        for view, seen in zip(part, pixels, strict=True):
            held = pack.rows[view.row]
            facts = file_facts(held.file, held.kind)
            rim = rim_mask(pack, view)
            out["rim"].append(rim_features(seen, rim))
            out["file size"].append(size_features(facts))
            out["quantisation"].append(quantisation_features(facts))
            out["coding of the rim"].append(coding_features(seen, rim))
            out["picture size"].append(picture_features(facts, held.source_px, held.picture_px))
    return {name: np.stack(values) for name, values in out.items()}


def probe(features: Array, labels: Array, groups: Sequence[str], *, rounds: int = 300) -> tuple[Figure, Figure]:
    """AUC of a logistic regression and of boosted trees, each view scored by models that never saw its group.

    Args:
        features: (N, F).
        labels: (N,) with both classes.
        groups: N names.
        rounds: of the bootstrap.
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


def audit(
    pack: Pack,
    per_class: int,
    *,
    seed: int = 0,
    rounds: int = 300,
    kept: Path | None = None,
    tell: Callable[[str], None] | None = None,
) -> Iterator[list[Finding]]:
    """Every probe on every recipe, drawn plainly and matched; gives all findings so far after each recipe.

    Args:
        pack: its training split is audited; the source files must be there.
        per_class: most views per source and label.
        seed: of the draws.
        rounds: of the bootstrap.
        kept: a file of findings that a stopped audit goes on with.
        tell: receives progress lines.
    """
    settings = {"form": FORM, "per_class": per_class, "seed": seed, "rounds": rounds}
    out = _read_findings(kept, settings) if kept else []
    drawn = {draw: recipes(pack, per_class, matched=draw == MATCHED, seed=seed) for draw in (PLAIN, MATCHED)}
    known = {(finding.recipe, finding.draw) for finding in out}
    for name in dict.fromkeys([*drawn[PLAIN], *drawn[MATCHED]]):
        for draw, of_draw in drawn.items():
            if name not in of_draw or (name, draw) in known:
                continue
            found = audit_views(pack, of_draw[name], name, draw, rounds=rounds)
            out += found
            if kept:
                with kept.open("a", encoding="utf-8") as stream:
                    stream.writelines(json.dumps(settings | asdict(finding)) + "\n" for finding in found)
            if tell and found:
                worst = max(found, key=lambda f: abs(f.worst.value - 0.5))
                tell(f"{draw}, {name}: {len(of_draw[name])} views, worst {worst.probe} {worst.worst}")
        yield out


def _read_findings(path: Path, settings: Mapping[str, int]) -> list[Finding]:
    """The findings in a file that were made with the same settings."""
    out = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        held = json.loads(line)
        if {name: held.pop(name, None) for name in settings} == settings:
            held |= {name: Figure(**held[name]) for name in ("linear", "boosted")}
            out.append(Finding(**held))
    return out


def audit_views(pack: Pack, views: Sequence[View], recipe: str, draw: str, *, rounds: int = 300) -> list[Finding]:
    """Every probe on some views; nothing where all are of one group."""
    labels = np.array([view.label for view in views], np.float64)
    groups = [pack.rows[view.row].group for view in views]
    if len({fold_of(group) for group in groups}) < 2:
        return []
    return [
        Finding(recipe, draw, name, len(views), *probe(features, labels, groups, rounds=rounds))
        for name, features in features_of(pack, views).items()
    ]


def audit_markdown(findings: Sequence[Finding], what: str, notes: Sequence[str] = ()) -> str:
    """The report: a table per probe with both draws side by side, and what fails."""
    by_key = {(f.recipe, f.probe, f.draw): f for f in findings}
    names = list(dict.fromkeys(f.recipe for f in findings))
    failed = [f for f in findings if f.draw == MATCHED and not f.passes]
    sure = sum(f.certain for f in failed)
    lines = [
        "# Leak audit",
        "",
        f"Made by `python -m benchmarks.leak_audit`: {what}",
        "A logistic regression and boosted trees try to tell real from fake without seeing the face; every view is",
        "scored by models that never saw its group. AUC with its 95 % interval by bootstrap over groups; it must stay",
        f"within {LOW:.2f} to {HIGH:.2f}. **Bold**: it does not; with an asterisk the interval still reaches into the",
        "bounds. *Plain* draws crops as they come, *matched* is what training does now: as many real as fake views",
        "within each source, faces of the same size, each self-blend beside a view of its own original.",
        "",
        f"Matched, {len(failed)} of {sum(f.draw == MATCHED for f in findings)} probes fail, {sure} of them surely.",
    ]
    for probe_name in PROBES:
        rows = []
        for name in names:
            found = [by_key.get((name, probe_name, draw)) for draw in (PLAIN, MATCHED)]
            views = " / ".join(str(f.views) if f else "–" for f in found)
            rows.append(
                [name, views, *(_cell(x) for f in found for x in ((f.linear, f.boosted) if f else (None, None)))]
            )
        heads = ("recipe", "views", "linear, plain", "boosted, plain", "linear, matched", "boosted, matched")
        lines += ["", f"## {probe_name[0].upper()}{probe_name[1:]}", "", *markdown_table(heads, rows)]
    for note in notes:
        lines += ["", note]
    return "\n".join(lines) + "\n"


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "–"
    if LOW <= figure.value <= HIGH:
        return str(figure)
    return f"**{figure}**" + ("" if figure.low > HIGH or figure.high < LOW else " *")


def failures(findings: Sequence[Finding]) -> Mapping[str, list[str]]:
    """Probes that fail surely on the matched draw, by recipe."""
    out: dict[str, list[str]] = {}
    for finding in findings:
        if finding.draw == MATCHED and finding.certain:
            out.setdefault(finding.recipe, []).append(finding.probe)
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.leak_audit`; exit code 1 when a recipe fails surely, 3 when the data cannot be used."""
    parser = argparse.ArgumentParser(description="Can labels of training batches be told without seeing the face?")
    parser.add_argument("--data", type=Path, required=True, help="manifests, or real/ and fake/")
    parser.add_argument("--per-class", type=int, default=300, help="most views per source and label")
    parser.add_argument("--packs", type=Path, default=Path("runs/audit/pack"), help="folder of the face crops")
    parser.add_argument("--notes", type=Path, help="paragraphs that the report ends with, in Markdown")
    parser.add_argument("--out", type=Path, default=Path("docs/results/leak_audit.md"), help="the report to write")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--rounds", type=int, default=300, help="of the bootstrap")
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
    redrawn, portraits = stored_crops(chosen.packs / REDRAWN_FOLDER), stored_portraits(chosen.packs / PORTRAITS_FOLDER)
    pack = replace(pack, redrawn=redrawn, portraits=portraits)
    notes = chosen.notes.read_text(encoding="utf-8").strip().split("\n\n") if chosen.notes else ()
    what = f"at most {chosen.per_class} views per source and label of the training split of `{chosen.data.name}`."
    findings: list[Finding] = []
    kept = chosen.packs.parent / "findings.jsonl"
    for findings in audit(pack, chosen.per_class, seed=chosen.seed, rounds=chosen.rounds, kept=kept, tell=tell):
        chosen.out.write_text(audit_markdown(findings, what, notes), encoding="utf-8")
    print(chosen.out.read_text(encoding="utf-8"))
    return 1 if failures(findings) else 0


if __name__ == "__main__":
    sys.exit(main())
