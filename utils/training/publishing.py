"""From trained experts to a published version: gate, calibration, figures, model card, the known pair.

The last stage of `fit.train_all`.
"""

from __future__ import annotations

import datetime
import platform
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit

from models.cards import EXPERT_NAMES, expert_card
from models.ensemble_model import Ensemble, create_network
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
from utils.networks import load_vit_base
from utils.tensors import Arrays, load_into, unpack_tensors
from utils.training.crop_set import Pack
from utils.training.features import FeatureStore
from utils.training.gate_fit import GateFit, fit_gate
from utils.training.golden_sets import write_golden_sets
from utils.training.plan import TrainingPlan
from utils.training.planning import CLEAN
from utils.training.progress import tell
from utils.training.scoring import clip_table, image_table
from utils.training.strangers import Strangers, Unseen, relatives, stranger_figures, with_vit
from utils.training.views import clip_slices
from utils.weights import CARD_FILE, Version, publish_version, read_document, verify_version

HARD, CALIB_CLIPS = "calib_hard", "calib_clips"
"""Stores of the calibration pictures that were degraded, and of the calibration clips."""


@dataclass(frozen=True)
class Trained:
    """What a run produced: the published version and the raw scores of its validation."""

    version: Version
    scores: Path
    figures: Mapping[str, Any]


def state_arrays(module: torch.nn.Module) -> Arrays:
    """A module's state as arrays, on the CPU."""
    return {name: value.detach().cpu().numpy() for name, value in module.state_dict().items()}


def assemble(arrays: Mapping[str, Arrays], root: Path, *, tiny: bool) -> Ensemble:
    """The ensemble of stored weights: exactly what a server will load, rounding included."""
    experts = {}
    for name, stored in arrays.items():
        expert = create_network(name, tiny=tiny)
        if name == "vit" and not tiny:
            load_vit_base(expert, root / "base")
        load_into(expert, unpack_tensors(stored), what=name, strict=name != "vit" or tiny)
        experts[name] = expert
    return Ensemble(experts=experts, tiny=tiny).eval()


def strange(unseen: Unseen, store: str, sources: Sequence[str], learned: Collection[str]) -> npt.NDArray[np.float64]:
    """(N,) logits of heads that have not seen a view's source; NaN where the start has seen it: its own count there."""
    return np.where([source in learned for source in sources], np.nan, unseen.of_own(store))


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
    names = ("calib", HARD) if unseen is None else ("calib", CLEAN, HARD)
    tables: dict[str, ScoreTable] = {}
    for name in names:
        if name in stores:
            table = image_table(ensemble, pack, stores[name], device=device)
            tables[name] = table if unseen is None else with_vit(table, strange(unseen, name, table.sources, learned))
    if CLEAN in tables:
        tables[CLEAN] = tables[CLEAN].select(np.array([source not in learned for source in tables[CLEAN].sources]))
    if CALIB_CLIPS in stores:
        table = clip_table(ensemble, pack, stores[CALIB_CLIPS], device=device)
        if unseen is not None:
            frames = unseen.of_own(CALIB_CLIPS)
            clips = np.array([frames[p].mean() for p in clip_slices(pack, stores[CALIB_CLIPS].views)])
            table = with_vit(table, np.where([source in learned for source in table.sources], np.nan, clips))
        tables[CALIB_CLIPS] = table
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
    tables = [image_table(ensemble, pack, stores["val"], device=device)]
    if "val_clips" in stores:
        tables.append(clip_table(ensemble, pack, stores["val_clips"], device=device))
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
