"""The last stage of a training: golden set and replay buffer of the new version, out of the features that it made.

The golden set is half of the validation split, chosen by the hash of the person or clip, so that later versions get
the same half; the scorecard's other half stays untouched by learning. The replay buffer comes from the calibration
split: the networks do not know it by heart, so it can show what they are about to forget.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.ensemble_model import Ensemble
from utils.errors import TrainingDataError
from utils.evaluation.score_file import ScoreTable
from utils.feedback.feature_set import FeatureSet, join_features, pseudonym, save_features
from utils.feedback.golden import CHECKSUM_FILE, GOLDEN_FILE, LEARNING_FOLDER, REPLAY_FILE
from utils.files import file_sha256, fsync_folder
from utils.networks import load_ensemble
from utils.training.crop_set import Pack
from utils.training.features import Features, FeatureStore
from utils.training.scoring import clip_table, image_table
from utils.training.views import clip_slices
from utils.weights import Version, frozen_fingerprint, verify_version

CLIP_FRAMES = 4
"""Frames of a clip whose tokens are kept; its other logits are those of all frames."""


GOLDEN, REPLAY = (80, 560), (45, 400)
"""Most pictures per source and label, and in all, so that both files together stay below nine megabytes."""


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
    part = Features([store], np.sort(np.asarray(chosen, np.int64)))
    return _features(image_table(ensemble, pack, part), part, [np.array([i]) for i in range(len(part.views))])


def clip_features(ensemble: Ensemble, pack: Pack, store: FeatureStore, *, golden: bool) -> FeatureSet | None:
    """Clips of a store, of the golden half only where asked; None when there is none."""
    mine = np.array([not golden or in_golden_half(pack.rows[view.row].group) for view in store.views])
    part = Features([store], mine)
    if not part.views:
        return None
    clips = [np.arange(p.start, p.stop) for p in clip_slices(pack, part.views)]
    few = [np.linspace(0, len(c) - 1, min(CLIP_FRAMES, len(c))).round().astype(int) for c in clips]
    kept = [clip[frames] for clip, frames in zip(clips, few, strict=True)]
    return _features(clip_table(ensemble, pack, part), part, kept)


def _features(table: ScoreTable, part: Features, frames: Sequence[npt.NDArray[np.int64]]) -> FeatureSet:
    """Scores as a feature set, with the tokens of some frames of each medium."""
    return FeatureSet(
        tokens=np.asarray(part.take("tokens", np.concatenate(frames)), np.float16),
        starts=np.cumsum([0, *map(len, frames)]),
        logits=table.logits.astype(np.float32),
        quality=table.quality.astype(np.float32),
        labels=table.labels.astype(np.float32),
        sources=table.sources,
        generators=table.generators,
        groups=tuple(pseudonym(g) for g in table.groups),
        keys=tuple(media_key(n) for n in table.names),
    )


def capped(store: FeatureStore, candidates: Sequence[int], most: int, in_all: int, *, seed: int) -> list[int]:
    """At most `most` items per source and label, drawn at random; fewer of each where all are more than `in_all`."""
    cells: dict[tuple[str, int], list[int]] = defaultdict(list)
    for i in np.random.default_rng(seed).permutation(np.asarray(candidates, np.int64)):
        view = store.views[int(i)]
        cells[view.source, view.label].append(int(i))
    while most > 1 and sum(min(most, len(items)) for items in cells.values()) > in_all:
        most -= 1
    return [i for _, items in sorted(cells.items()) for i in items[:most]]


def write_golden_sets(root: Path, version: Version, pack: Pack, stores: Mapping[str, FeatureStore]) -> Path:
    """Write golden set and replay buffer of a version that has just been trained.

    Args:
        stores: features of `val` and `calib` and, where there are clips, of `val_clips` and `calib_clips`.

    Returns:
        The folder that was written, `learning/<name>` under the root.

    Raises:
        TrainingDataError: the golden set would lack real or fake items.
    """
    ensemble, _ = load_ensemble(root, version)
    val, calib = stores["val"], stores["calib"]
    half = [i for i in range(val.done) if in_golden_half(pack.rows[val.views[i].row].group)]
    golden = [picture_features(ensemble, pack, val, capped(val, half, *GOLDEN, seed=1))] if half else []
    replay = [picture_features(ensemble, pack, calib, capped(calib, range(calib.done), *REPLAY, seed=2))]
    for store, into, of_golden in (("val_clips", golden, True), ("calib_clips", replay, False)):
        if store in stores:
            clips = clip_features(ensemble, pack, stores[store], golden=of_golden)
            into += [clips] if clips is not None else []
    if {label for part in golden for label in part.labels} != {0.0, 1.0}:
        raise TrainingDataError("The golden half of the validation pictures lacks real or fake ones.")
    return write_lineage(root, version.name, join_features(golden), join_features(replay))


def write_lineage(root: Path, name: str, golden: FeatureSet, replay: FeatureSet) -> Path:
    """Write both sets of a version with their checksums; they replace earlier ones in one step."""
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
