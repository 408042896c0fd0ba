"""Make golden set and replay buffer of a trained version out of the features that its training left.

The golden set is half of the validation split, chosen by the hash of the person or clip, so that later versions get
the same half; the scorecard's other half stays untouched by learning. The replay buffer comes from the calibration
split: the networks do not know it by heart, so it can show what they are about to forget.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import hashlib
import json
import shutil
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.ensemble_model import Ensemble
from utils.base_weights import file_sha256
from utils.config import load_settings
from utils.errors import TelltaleError, TrainingDataError
from utils.feedback.feature_set import FeatureSet, join_features, pseudonym, save_features
from utils.feedback.golden import (
    CHECKSUM_FILE,
    GOLDEN_FILE,
    LEARNING_FOLDER,
    load_lineage,
    score_golden,
)
from utils.feedback.replay import REPLAY_FILE
from utils.feedback.trainable import load_parts
from utils.feedback.versions import lineage_of
from utils.fingerprint import frozen_fingerprint
from utils.training.crop_set import Pack, PackedCrop, load_pack
from utils.training.features import FeatureStore
from utils.training.scoring import clip_slices, image_table, score_store
from utils.training.views import View
from utils.weights import current_name, fsync_folder, load_ensemble, verify_version, weights_root

CLIP_FRAMES = 4
"""Frames of a clip whose tokens are kept; its other logits are those of all frames."""
EXIT_FAILED = 3


@dataclasses.dataclass(frozen=True)
class Limits:
    """How many items are taken, so that both files together stay below six megabytes.

    Args:
        golden: most pictures per source and label in the golden set.
        replay: most pictures per source and label in the replay buffer.
    """

    golden: int = 80
    replay: int = 45


def read_views(folder: Path) -> tuple[View, ...]:
    """The views of a feature store, from the text that it keeps of them; nothing of the text is executed.

    Raises:
        TrainingDataError: it is not there or of another form.
    """
    try:
        tree = ast.parse((folder / "views.txt").read_text(encoding="utf-8"), mode="eval").body
        if not isinstance(tree, ast.Tuple):
            raise ValueError("it is no tuple")
        views = []
        for call in tree.elts:
            if not isinstance(call, ast.Call) or call.args:
                raise ValueError("it holds something else than views")
            views.append(View(**{str(k.arg): ast.literal_eval(k.value) for k in call.keywords}))
        return tuple(views)
    except (OSError, ValueError, SyntaxError, TypeError) as error:
        raise TrainingDataError(f"{folder.name}/views.txt cannot be read: {error}") from error


def open_store(folder: Path) -> FeatureStore:
    """A finished feature store that is only read.

    Raises:
        TrainingDataError: it is not there or not finished.
    """
    views = read_views(folder)
    store = FeatureStore(folder, views)
    if not store.done:
        raise TrainingDataError(f"The feature store {folder.name} is not finished.")
    return store


def join_packs(folders: Sequence[Path]) -> Pack:
    """The facts of several packs, one after another; of the first alone also its pixels."""
    packs = [load_pack(folder) for folder in folders]
    rows: list[PackedCrop] = []
    for pack in packs:
        offset = len(rows)
        rows += [dataclasses.replace(row, row=row.row + offset) for row in pack.rows]
    return Pack(packs[0].pixels, tuple(rows), ())


def media_key(name: str) -> str:
    """What tells a medium apart: a pseudonym of its bytes, so that the same file is known again when it is uploaded.

    A file that is gone gets a pseudonym of its name, by which no upload is known.
    """
    path = Path(name)
    return pseudonym(file_sha256(path) if path.is_file() else name)


def in_golden_half(group: str) -> bool:
    """Whether a group of the validation split belongs to the golden half."""
    return int(hashlib.sha256(f"golden {group}".encode()).hexdigest(), 16) % 2 == 0


def picture_features(ensemble: Ensemble, pack: Pack, store: FeatureStore, chosen: Sequence[int]) -> FeatureSet:
    """The chosen pictures of a store with the raw logits of a version's networks."""
    picked = np.sort(np.asarray(chosen, np.int64))
    part = _Part(store, picked)
    table = image_table(ensemble, pack, part)  # type: ignore[arg-type]
    return FeatureSet(
        tokens=np.asarray(part.load("tokens"), np.float16),
        starts=np.arange(len(picked) + 1),
        logits=table.logits.astype(np.float32),
        quality=table.quality.astype(np.float32),
        labels=table.labels.astype(np.float32),
        sources=table.sources,
        generators=table.generators,
        groups=tuple(pseudonym(g) for g in table.groups),
        keys=tuple(media_key(n) for n in table.names),
    )


def clip_features(ensemble: Ensemble, pack: Pack, store: FeatureStore, *, golden: bool) -> FeatureSet | None:
    """Clips of a store, of the golden half only where asked; None when there is none."""
    frames, out = np.asarray(store.load("tokens")), []
    quality = np.asarray(store.load("quality"), np.float32)
    parts = [p for p in clip_slices(pack, store) if not golden or in_golden_half(_row(pack, store, p.start).group)]
    for p in parts:
        index = np.arange(p.start, p.stop)
        logits, features = score_store(ensemble, _Part(store, index))  # type: ignore[arg-type]
        row, view = _row(pack, store, p.start), store.views[p.start]
        whole = logits.mean(0)
        whole[3] = _sequence(ensemble, features)
        kept = index[np.linspace(0, len(index) - 1, min(CLIP_FRAMES, len(index))).round().astype(int)]
        out.append(
            FeatureSet(
                tokens=frames[kept],
                starts=np.array([0, len(kept)]),
                logits=whole[None].astype(np.float32),
                quality=quality[index].mean(0, keepdims=True),
                labels=np.array([view.label], np.float32),
                sources=(view.source,),
                generators=(view.generator,),
                groups=(pseudonym(row.group),),
                keys=(media_key(row.file),),
            )
        )
    return join_features(out) if out else None


def _sequence(ensemble: Ensemble, features: npt.NDArray[np.float64] | None) -> float:
    import torch

    with torch.inference_mode():
        return float(ensemble.sequence_logit(None if features is None else torch.from_numpy(features)))


def _row(pack: Pack, store: FeatureStore, index: int) -> PackedCrop:
    return pack.rows[store.views[index].row]


class _Part:
    """Some rows of a store, as the scoring functions read one."""

    def __init__(self, store: FeatureStore, picked: npt.NDArray[np.int64]) -> None:
        self._store, self._picked = store, picked
        self.views = tuple(store.views[i] for i in picked)
        self.done = len(picked)

    def load(self, name: str) -> npt.NDArray[np.generic]:
        return np.asarray(self._store.load(name)[self._picked])


def capped(store: FeatureStore, candidates: Sequence[int], most: int, seed: int) -> list[int]:
    """At most `most` items per source and label, drawn at random."""
    cells: dict[tuple[str, int], list[int]] = defaultdict(list)
    for i in np.random.default_rng(seed).permutation(np.asarray(candidates, np.int64)):
        view = store.views[int(i)]
        cells[view.source, view.label].append(int(i))
    return [i for _, items in sorted(cells.items()) for i in items[:most]]


def build(root: Path, name: str, features: Path, packs: Sequence[Path], limits: Limits | None = None) -> Path:
    """Write golden set and replay buffer of a version.

    Args:
        root: the folder with the versions.
        name: of a trained version.
        features: folder with the stores `val`, `calib` and, where there are clips, `val_clips` and `calib_clips`.
        packs: folders of the packs that the stores' rows count through.
        limits: how many items.

    Returns:
        The folder that was written, `learning/<name>` under the root.

    Raises:
        TrainingDataError: a store is missing, or the golden set would lack real or fake items.
        WeightsError: the version is missing or damaged.
    """
    limits = limits or Limits()
    version = verify_version(root, name)
    ensemble, _ = load_ensemble(root, version)
    pack = join_packs(packs)
    val, calib = open_store(features / "val"), open_store(features / "calib")
    half = [i for i in range(val.done) if in_golden_half(_row(pack, val, i).group)]
    golden = [picture_features(ensemble, pack, val, capped(val, half, limits.golden, 1))]
    replay = [picture_features(ensemble, pack, calib, capped(calib, range(calib.done), limits.replay, 2))]
    for store, into, of_golden in (("val_clips", golden, True), ("calib_clips", replay, False)):
        if (features / store).is_dir():
            clips = clip_features(ensemble, pack, open_store(features / store), golden=of_golden)
            into += [clips] if clips is not None else []
    return write_lineage(root, name, join_features(golden), join_features(replay))


def write_lineage(root: Path, name: str, golden: FeatureSet, replay: FeatureSet) -> Path:
    """Write both sets of a version with their checksums; they replace earlier ones in one step."""
    if set(golden.labels) != {0.0, 1.0}:
        raise TrainingDataError("A golden set needs real and fake items.")
    facts = {"version": name, "experts": frozen_fingerprint(verify_version(root, name))}
    target = root / LEARNING_FOLDER / name
    scratch = target.with_name(f".{name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    save_features(scratch / GOLDEN_FILE, golden, facts | {"name": f"golden-{name}"})
    save_features(scratch / REPLAY_FILE, replay, facts)
    for path in scratch.iterdir():
        path.chmod(0o644)
    sums = {n: file_sha256(scratch / n) for n in (GOLDEN_FILE, REPLAY_FILE)}
    (scratch / CHECKSUM_FILE).write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")
    fsync_folder(scratch)
    if target.exists():
        shutil.rmtree(target)
    scratch.rename(target)
    fsync_folder(target.parent)
    return target


def show(root: Path, name: str) -> str:
    """The golden figures of a version as text."""
    version = verify_version(root, name)
    lineage = load_lineage(verify_version(root, lineage_of(version)))
    parts = load_parts(version)
    lines = [f"{name}: replay buffer of {len(lineage.replay)} items"]
    for golden in lineage.golden:
        figures = score_golden(parts, golden)
        lines.append(
            f"{golden.name} ({golden.sha256[:12]}): {figures.count} items, AUC {figures.auc:.4f}, "
            f"ECE {figures.ece:.4f}, accuracy {figures.accuracy:.4f}"
        )
        lines += [f"  {slice_name}: {value:.4f}" for slice_name, value in sorted(figures.slices.items())]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Entry point of `python -m utils.feedback.golden`."""
    parser = argparse.ArgumentParser(prog="python -m utils.feedback.golden", description="Golden sets.")
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("build", help="golden set and replay buffer of a trained version")
    make.add_argument("--features", type=Path, required=True, help="folder with the stores val, calib, ...")
    make.add_argument("--pack", type=Path, action="append", required=True, help="folder of a pack; in order")
    see = commands.add_parser("show", help="figures of a version on its golden sets")
    own = commands.add_parser("add", help="a golden set of your own files")
    own.add_argument("--name", required=True, help="of the set")
    own.add_argument("--real", type=Path, nargs="*", default=[], help="files that are real")
    own.add_argument("--fake", type=Path, nargs="*", default=[], help="files that are fake")
    own.add_argument("--out", type=Path, required=True, help="folder of your golden sets")
    for command in (make, see):
        command.add_argument("--version", default="", help="name of the version (default: the one in use)")
    chosen = parser.parse_args(arguments)
    try:
        root = weights_root(load_settings())
        if chosen.command == "add":
            from utils.feedback.golden_own import add_own

            print(add_own(chosen.out, chosen.name, chosen.real, chosen.fake))
            return 0
        name = chosen.version or current_name(root)
        if chosen.command == "build":
            print(f"wrote {build(root, name, chosen.features, chosen.pack)}")
        print(show(root, name))
    except TelltaleError as error:
        print(error, file=sys.stderr)
        return EXIT_FAILED
    return 0
