"""From trained experts to a published version: gate, calibration, figures, model card, the known pair.

The last stage of `fit.train_all`.

Golden set and replay buffer of the version come last. The golden set is half of the validation split, chosen by the
hash of the person or clip, so that later versions get the same half; the scorecard's other half stays untouched by
learning. The replay buffer comes from the calibration split: the networks do not know it by heart, so it can show what
they are about to forget.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
import shutil
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit

from models.cards import EXPERT_NAMES, expert_card
from models.ensemble_model import Ensemble
from utils.base_weights import FACE_FILE
from utils.config import Settings
from utils.detection.calibration import Calibration, fit_calibration
from utils.detection.engine import NumericGate
from utils.detection.pipeline import Analyser
from utils.detection.selftest import record_known_pair
from utils.detection.torch_engine import TorchEngine
from utils.errors import TrainingDataError
from utils.evaluation.figures import figures_of
from utils.evaluation.score_file import ScoreTable, join_tables, write_scores
from utils.faces.detector import CenterFaceDetector
from utils.feedback.feature_set import FeatureSet, join_features, pseudonym, save_features
from utils.feedback.golden import CHECKSUM_FILE, GOLDEN_FILE, LEARNING_FOLDER, REPLAY_FILE
from utils.files import file_sha256, fsync_folder
from utils.networks import build_ensemble, load_ensemble, with_base
from utils.tensors import Arrays, state_arrays, unpack_tensors
from utils.training.crop_set import Pack
from utils.training.features import Features, FeatureStore
from utils.training.gate_fit import GateFit, fit_gate
from utils.training.loop import tell
from utils.training.planning import CLEAN, TrainingPlan
from utils.training.scoring import score_table
from utils.training.strangers import Strangers, Unseen, relatives, stranger_figures, with_vit
from utils.training.views import clip_slices
from utils.weights import CARD_FILE, Version, frozen_fingerprint, publish_version, read_document, verify_version

HARD, CALIB_CLIPS = "calib_hard", "calib_clips"
"""Stores of the calibration pictures that were degraded, and of the calibration clips."""


@dataclass(frozen=True)
class Trained:
    """What a run produced: the published version and the raw scores of its validation."""

    version: Version
    scores: Path
    figures: Mapping[str, Any]


def assemble(arrays: Mapping[str, Arrays], root: Path, *, tiny: bool) -> Ensemble:
    """The ensemble of stored weights: exactly what a server will load, rounding included."""
    unpacked = {name: unpack_tensors(stored) for name, stored in arrays.items()}
    return build_ensemble({n: own if tiny else with_base(n, own, root) for n, own in unpacked.items()}, tiny=tiny)


def calibration_table(
    ensemble: Ensemble,
    pack: Pack,
    stores: Mapping[str, FeatureStore],
    device: str,
    *,
    unseen: Unseen | None = None,
    learned: Collection[str] = (),
) -> tuple[ScoreTable, npt.NDArray[np.bool_]]:
    """Scores of the calibration split: pictures as they come, degraded ones, clips; and which were not degraded.

    Args:
        unseen: the ViT's logits by heads that have not seen a view's source, in place of its own; then also training
            pictures as they come.
        learned: sources that the version had seen from which training went on; of these no training pictures, and the
            ViT's own logits.
    """
    names = ("calib", HARD, CALIB_CLIPS) if unseen is None else ("calib", CLEAN, HARD, CALIB_CLIPS)
    tables: dict[str, ScoreTable] = {}
    for name in names:
        if name in stores:
            table = score_table(ensemble, pack, stores[name], device=device)
            if unseen is not None:
                frames, known = unseen.of_own(name), np.array([source in learned for source in table.sources])
                own = [frames[part].mean() for part in clip_slices(pack, stores[name].views)]
                table = with_vit(table, np.where(known, np.nan, own))
                table = table.select(~known) if name == CLEAN else table
            tables[name] = table
    as_come = np.concatenate([np.full(len(table), name != HARD) for name, table in tables.items()])
    return join_tables(list(tables.values())), as_come


def learned_sources(root: Path, version: str) -> set[str]:
    """The sources that a version's card names as trained on."""
    card = read_document(verify_version(root, version).folder / CARD_FILE)
    return {name.split()[1] for name in card["data"]["crops"] if name.startswith("train ")}


def finish(
    pack: Pack,
    stores: Mapping[str, FeatureStore],
    experts: Mapping[str, Arrays],
    run: Path,
    root: Path,
    name: str,
    plan: TrainingPlan,
    *,
    device: str,
    terms: Sequence[str],
    notes: Sequence[str],
    strangers: Strangers | None = None,
) -> Trained:
    """Fit gate and calibration, measure on validation data, publish with golden set and replay buffer.

    With `strangers`, gate, calibration and band come from pictures of sources that the ViT's head had not seen.
    """
    ensemble = assemble(experts, root, tiny=plan.tiny)
    by_source = strangers.by_source if strangers else None
    learned = learned_sources(root, plan.start) if plan.start else set()
    held, as_come = calibration_table(ensemble, pack, stores, device, unseen=by_source, learned=learned)
    together = [relatives(source) for source in held.sources] if strangers else None
    fitted = fit_gate(held, as_come=as_come, together=together)
    tell(f"gate: penalty {fitted.penalty:g}, cross-validated losses {fitted.losses}")
    eces = {"ece_before": fitted.ece_before, "ece_after": fitted.ece_after, "ece_degraded": fitted.ece_degraded}
    said = {name: value for name, value in eces.items() if np.isfinite(value)}
    calibration = fit_calibration(
        held.labels, expit(fitted.held_out), held.sources, said, as_come=as_come, strangers=strangers is not None
    )
    tables = [score_table(ensemble, pack, stores[n], device=device) for n in ("val", "val_clips") if n in stores]
    scores = run / "scores.csv"
    gate = state_arrays(fitted.gate)
    write_scores(scores, join_tables(tables), NumericGate(gate))
    figures = figures_of(scores, calibration)
    card = model_card(name, pack, tuple(experts), fitted, plan, figures, terms, notes)
    unseen = stranger_figures(tables[0], strangers, fitted.gate, calibration) if strangers else {}
    card["validation_of_unseen_sources"] = unseen
    engine = TorchEngine(ensemble, NumericGate(gate), device="cpu", threads=torch.get_num_threads())
    known = _known_pair(engine, calibration, root, experts, name)
    documents = {"calibration": calibration.to_dict(), "card": card, "selftest": known}
    version = publish_version(root, name, {**experts, "gate": gate}, documents, {"scores.csv": scores})
    try:
        write_golden_sets(root, version, pack, stores)
    except TrainingDataError as error:
        tell(f"{name} cannot learn from feedback: {error.detail}")
    return Trained(version, scores, figures)


def _known_pair(
    engine: TorchEngine, calibration: Calibration, root: Path, experts: Mapping[str, Arrays], name: str
) -> dict[str, dict[str, float]]:
    """What the self-test expects of this version, by way of the product's own pipeline."""
    analyser = Analyser(
        settings=Settings(),
        detector=CenterFaceDetector(root / "base" / FACE_FILE, threads=torch.get_num_threads()),
        engine=engine,
        calibration=calibration,
        version=name,
        version_sha256="",
        experts=tuple(experts),
        missing={},
    )
    return record_known_pair(analyser)


def model_card(
    name: str,
    pack: Pack,
    experts: Sequence[str],
    fitted: GateFit,
    plan: TrainingPlan,
    figures: Mapping[str, Any],
    terms: Sequence[str],
    notes: Sequence[str],
) -> dict[str, Any]:
    """Everything a user should know of a version, as plain JSON values."""
    counts = Counter(f"{row.split} {row.source} {'fake' if row.label else 'real'}" for row in pack.rows)
    return {
        "name": name,
        "tiny": plan.tiny,
        "made": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "notes": list(notes),
        "intended_use": "A hint for people who examine faces in photos and videos; never a decision's only ground.",
        "experts": {n: asdict(expert_card(n, tiny=plan.tiny)) for n in EXPERT_NAMES if n in experts},
        "data": {"crops": dict(sorted(counts.items())), "terms": list(terms)},
        "training": {
            "plan": asdict(plan),
            "gate_penalty": fitted.penalty if np.isfinite(fitted.penalty) else "plain mean",
            "gate_losses": fitted.losses,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "validation": figures,
    }


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


def features_of(ensemble: Ensemble, pack: Pack, store: FeatureStore, chosen: Sequence[int]) -> FeatureSet:
    """The chosen views of a store, pictures or whole clips, with the raw logits of a version's networks."""
    part = Features([store], np.sort(np.asarray(chosen, np.int64)))
    spans = [np.arange(p.start, p.stop) for p in clip_slices(pack, part.views)]
    kept = [span[np.linspace(0, len(span) - 1, min(CLIP_FRAMES, len(span))).round().astype(int)] for span in spans]
    table = score_table(ensemble, pack, part)
    return FeatureSet(
        tokens=np.asarray(part.take("tokens", np.concatenate(kept)), np.float16),
        starts=np.cumsum([0, *map(len, kept)]),
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
    golden: list[FeatureSet] = []
    replay: list[FeatureSet] = []
    for into, split, most, seed in ((golden, "val", GOLDEN, 1), (replay, "calib", REPLAY, 2)):
        for store in (stores[name] for name in (split, f"{split}_clips") if name in stores):
            groups = [pack.rows[view.row].group for view in store.views[: store.done]]
            chosen = [i for i, group in enumerate(groups) if into is replay or in_golden_half(group)]
            if store is stores[split]:
                chosen = capped(store, chosen, *most, seed=seed)
            into += [features_of(ensemble, pack, store, chosen)] if chosen else []
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
