"""Train everything, in order: pack faces, store features, four experts, gate, calibration, a version, its figures.

`train.py` and `quick_train.py` are thin shells around `train_all`. Every stage writes into the run's folder and is
taken up again where it was stopped.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.ensemble_model import Ensemble
from models.gating import Gate
from models.registry import EXPERT_NAMES, create_network, get_card
from models.vision_transformer import ViTExpert
from utils.detection.calibration import fit_calibration
from utils.errors import TrainingDataError, WeightsError
from utils.evaluation.scorecard import figures_of, write_scores
from utils.evaluation.scores import ScoreTable, join_tables
from utils.faces.detector import FaceDetector
from utils.learning.clips import clean_clips, clip_sequences, why_no_sequences
from utils.learning.datasets import Sample
from utils.learning.experts import new_network, train_cnn, train_lstm, train_resnext, train_vit_head
from utils.learning.features import FeatureStore, JoinedStore, TorchFeaturizer
from utils.learning.gate_fit import GateFit, expert_aucs, fit_gate, gate_logits
from utils.learning.loop import Recipe
from utils.learning.pace import counter
from utils.learning.packing import Pack, count_table, framing_table, pack_faces
from utils.learning.scoring import clip_table, image_table
from utils.learning.views import plan_views
from utils.log import get_logger
from utils.types import MediaKind
from utils.weights import Arrays, Version, load_into, load_vit_base, pack_tensors, publish_version, unpack_tensors

log = get_logger(__name__)
Tell = Callable[[str], None]


@dataclass(frozen=True)
class TrainingPlan:
    """What is trained how long.

    Args:
        per_class: most pictures per source and label that an epoch of the CNN sees, each time seen anew.
        blends: most self-blended fakes per source among them.
        stored_per_class: most views per source and label whose ViT features are stored; ViT head and ResNeXt-50 learn
            from these. Half a second each on one processor core.
        stored_blends: most self-blended fakes per source among them.
        calib_per_class: most calibration pictures per source and label.
        frames_per_clip: frames of a training clip that the image experts learn from.
        clip_blends: self-blended fakes made of each real training clip for the LSTM.
        cnn: recipe of the CNN.
        resnext: recipe of ResNeXt-50.
        vit: recipe of the ViT's head.
        lstm: recipe of the LSTM.
        tiny: train the tiny test networks.
    """

    per_class: int = 2000
    blends: int = 500
    stored_per_class: int = 2000
    stored_blends: int = 500
    calib_per_class: int = 300
    frames_per_clip: int = 6
    clip_blends: int = 2
    cnn: Recipe = field(default_factory=lambda: Recipe(epochs=12, lr=2e-3, weight_decay=0.02, average=0.99))
    resnext: Recipe = field(default_factory=lambda: Recipe(epochs=12, lr=1e-3, patience=5))
    vit: Recipe = field(default_factory=lambda: Recipe(epochs=15, batch=64, lr=1e-3, weight_decay=0.5, patience=6))
    lstm: Recipe = field(default_factory=lambda: Recipe(epochs=20, batch=16, lr=3e-4, weight_decay=0.1, patience=6))
    tiny: bool = False


def quick_plan() -> TrainingPlan:
    """Minutes on a CPU: five epochs on a subset."""
    return TrainingPlan(
        per_class=150,
        blends=40,
        stored_per_class=150,
        stored_blends=40,
        calib_per_class=60,
        frames_per_clip=2,
        clip_blends=1,
        cnn=Recipe(epochs=5, lr=1.5e-3, average=0.98),
        resnext=Recipe(epochs=5, lr=1e-3, average=0.98),
        vit=Recipe(epochs=5, batch=64, lr=5e-4, weight_decay=0.2),
        lstm=Recipe(epochs=5, batch=8, lr=3e-4, weight_decay=0.1),
    )


def tiny_plan() -> TrainingPlan:
    """Seconds, with the tiny networks: for trying the way through, not for use."""
    few = Recipe(epochs=2, batch=8, lr=3e-3, average=0.5)
    return TrainingPlan(
        per_class=40,
        blends=10,
        stored_per_class=40,
        stored_blends=10,
        calib_per_class=20,
        frames_per_clip=2,
        clip_blends=1,
        cnn=few,
        resnext=few,
        vit=few,
        lstm=few,
        tiny=True,
    )


@dataclass(frozen=True)
class Trained:
    """What a run produced: the published version and the raw scores of its validation."""

    version: Version
    scores: Path
    figures: Mapping[str, Any]


def train_all(
    samples: Sequence[Sample],
    run: Path,
    root: Path,
    name: str,
    plan: TrainingPlan,
    detector: FaceDetector,
    *,
    device: str = "cpu",
    terms: Sequence[str] = (),
    notes: Sequence[str] = (),
    tell: Tell | None = None,
) -> Trained:
    """Train the four experts, the gate and the calibration, and publish them as a version.

    Args:
        samples: with splits train, calib and val.
        run: folder of this run: packs, features, checkpoints, metrics, scores.
        root: the folder with the versions and `base/`.
        name: of the new version.
        plan: what is trained how long.
        detector: the product's face detector.
        device: cpu or cuda.
        terms: of the training data, for the model card.
        notes: what else the model card should say.
        tell: receives progress lines.

    Raises:
        TrainingDataError: a split has no pictures of one class, or `run` holds the work of another training.
        WeightsError: the name is taken, which is said before any work is done.
    """
    say: Tell = tell or log.info
    if (root / name).exists():
        raise WeightsError(f"The version name {name!r} is taken; choose another with --name.")
    claim_run(run, samples, plan)
    pack = pack_faces(samples, run / "pack", detector, progress=counter(say, "files searched for faces", len(samples)))
    for left_out in pack.without_face:
        say(f"no face was found in {left_out}")
    _check_splits(pack)
    stores = make_stores(pack, run, root, plan, device=device, tell=say)
    experts = train_experts(pack, stores, run, root, plan, device=device, tell=say)
    return finish(pack, stores, experts, run, root, name, plan, device=device, terms=terms, notes=notes, tell=say)


def claim_run(run: Path, samples: Sequence[Sample], plan: TrainingPlan) -> None:
    """Make a folder the folder of this training, so that nothing of another one is ever taken up in it.

    Raises:
        TrainingDataError: it has features or checkpoints of other files or of networks of another size.
    """
    run.mkdir(parents=True, exist_ok=True)
    claim, listing = run / "run.json", run / "pack" / "samples.json"
    if claim.is_file() and json.loads(claim.read_text(encoding="utf-8"))["tiny"] != plan.tiny:
        raise TrainingDataError(f"{run} holds a training of networks of another size; name another --run.")
    names = [str(s.path) for s in samples]
    # a file that moved from training to validation would make the figures of what was trained before a lie
    facts = hashlib.sha256(repr([(s.path, s.label, s.source, s.group, s.split) for s in samples]).encode()).hexdigest()
    held = json.loads(claim.read_text(encoding="utf-8")) if claim.is_file() else {}
    begun = (run / "features").is_dir() and listing.is_file()
    if begun and (json.loads(listing.read_text(encoding="utf-8")) != names or held.get("samples", facts) != facts):
        raise TrainingDataError(f"{run} holds a training on other files or splits; name another --run.")
    claim.write_text(json.dumps({"tiny": plan.tiny, "samples": facts}) + "\n", encoding="utf-8")


def _check_splits(pack: Pack) -> None:
    for split in ("train", "calib", "val"):
        labels = {r.label for r in pack.select(split, MediaKind.IMAGE)}
        if labels != {0, 1}:
            found = " and ".join(("real", "fake")[label] for label in sorted(labels)) or "neither"
            raise TrainingDataError(f"The split {split} needs real and fake pictures with faces; it has {found}.")


def make_stores(
    pack: Pack, run: Path, root: Path, plan: TrainingPlan, *, device: str, tell: Tell
) -> dict[str, FeatureStore]:
    """Features of all splits, as `train`, `train_video`, `calib`, `calib_hard`, `val`, `calib_clips`, `val_clips`."""
    image = MediaKind.IMAGE
    seeds = np.random.default_rng(5)
    frames = [
        clip[int(i)]
        for clip in pack.videos("train").values()
        for i in seeds.permutation(len(clip))[: plan.frames_per_clip]
    ]
    stored, few, everything = plan.stored_per_class, plan.calib_per_class, 10**9
    views = {
        "train": plan_views(pack.select("train", image), per_class=stored, blends=plan.stored_blends, seed=1),
        "train_video": plan_views(frames, per_class=stored, blends=plan.stored_blends, seed=6),
        "calib": plan_views(pack.select("calib", image), per_class=few, blends=0, seed=2, clean=True),
        "calib_hard": plan_views(pack.select("calib", image), per_class=few // 3, blends=few // 15, seed=3),
        "val": plan_views(pack.select("val", image), per_class=everything, blends=0, seed=4, clean=True, balance=False),
        "calib_clips": clean_clips(pack, "calib"),
        "val_clips": clean_clips(pack, "val"),
    }
    reference = _reference_vit(root, plan)
    featurizer = TorchFeaturizer(reference, device, tiny=plan.tiny)
    stores = {}
    for name, of_store in views.items():
        if not of_store:
            continue
        store = FeatureStore(run / "features" / name, of_store)
        store.extract(pack, featurizer, counter(tell, f"features of {name}", len(of_store)))
        stores[name] = store
    return stores


def _reference_vit(root: Path, plan: TrainingPlan) -> ViTExpert:
    # the same each time: features are made with one of them, and a head is trained in another
    expert = new_network("vit", tiny=plan.tiny, seed=plan.vit.seed)
    if not isinstance(expert, ViTExpert):
        raise TypeError("the network `vit` must be a ViTExpert")
    if not plan.tiny:
        load_vit_base(expert, root / "base")
    return expert


def train_experts(
    pack: Pack,
    stores: Mapping[str, FeatureStore],
    run: Path,
    root: Path,
    plan: TrainingPlan,
    *,
    device: str,
    tell: Tell,
) -> dict[str, Arrays]:
    """Train the experts and give their weights as they will be stored."""
    train = JoinedStore([stores[n] for n in ("train", "train_video") if n in stores])
    calib = stores["calib"]
    vit = train_vit_head(train, calib, plan.vit, run / "vit", expert=_reference_vit(root, plan), progress=tell)
    cnn = train_cnn(
        pack, calib, plan.cnn, run / "cnn", per_class=plan.per_class, blends=plan.blends, device=device,
        tiny=plan.tiny, progress=tell,
    )  # fmt: skip
    resnext = train_resnext(train, calib, plan.resnext, run / "resnext", device=device, tiny=plan.tiny, progress=tell)
    arrays = {"cnn": pack_tensors(state_arrays(cnn), int8=False)}
    arrays["resnext"] = pack_tensors(state_arrays(resnext), int8=True)
    # of the ViT only what was trained is stored; everything else comes from the base
    vit_state = state_arrays(vit)
    kept = vit_state if plan.tiny else {k: v for k, v in vit_state.items() if k.startswith("head.")}
    arrays["vit"] = pack_tensors(kept, int8=False)
    if why := why_no_sequences(pack):
        tell(f"The LSTM is not trained. {why}")
    else:
        stored = assemble(arrays, Gate(experts=len(EXPERT_NAMES), quality=4), root, tiny=plan.tiny)
        data = clip_sequences(stored, pack, run / "clips", plan.clip_blends, device=device)
        held = clip_sequences(stored, pack, run / "clips_calib", plan.clip_blends, split="calib", device=device)
        lstm = train_lstm(*data, *held, plan.lstm, run / "lstm", tiny=plan.tiny, progress=tell)
        arrays["lstm"] = pack_tensors(state_arrays(lstm), int8=True)
    return arrays


def state_arrays(module: torch.nn.Module) -> Arrays:
    """A module's state as arrays, on the CPU."""
    return {name: value.detach().cpu().numpy() for name, value in module.state_dict().items()}


def assemble(arrays: Mapping[str, Arrays], gate: Gate, root: Path, *, tiny: bool) -> Ensemble:
    """The ensemble of stored weights: exactly what a server will load, rounding included."""
    experts = {}
    for name, stored in arrays.items():
        expert = create_network(name, tiny=tiny)
        if name == "vit" and not tiny:
            load_vit_base(expert, root / "base")
        load_into(expert, unpack_tensors(stored), what=name, strict=name != "vit" or tiny)
        experts[name] = expert
    return Ensemble(experts=experts, gate=gate, tiny=tiny).eval()


def calibration_table(ensemble: Ensemble, pack: Pack, stores: Mapping[str, FeatureStore], device: str) -> ScoreTable:
    """Scores of the calibration split: clean pictures, degraded ones, clips."""
    tables = [image_table(ensemble, pack, stores[n], device=device) for n in ("calib", "calib_hard") if n in stores]
    if "calib_clips" in stores:
        tables.append(clip_table(ensemble, pack, stores["calib_clips"], device=device))
    return join_tables(tables)


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
    tell: Tell,
) -> Trained:
    """Fit gate and calibration, measure on validation data, publish."""
    ensemble = assemble(experts, Gate(experts=len(EXPERT_NAMES), quality=4), root, tiny=plan.tiny)
    held = calibration_table(ensemble, pack, stores, device)
    fitted = fit_gate(held)
    tell(f"gate: penalty {fitted.penalty:g}, cross-validated losses {fitted.losses}")
    probabilities = 1 / (1 + np.exp(-gate_logits(fitted.gate, held)))
    calibration = fit_calibration(
        held.labels, probabilities, held.sources, {"ece_before": fitted.ece_before, "ece_after": fitted.ece_after}
    )
    tables = [image_table(ensemble, pack, stores["val"], device=device)]
    if "val_clips" in stores:
        tables.append(clip_table(ensemble, pack, stores["val_clips"], device=device))
    scores = run / "scores.csv"
    write_scores(scores, join_tables(tables), fitted.gate)
    figures = figures_of(scores, calibration)
    card = model_card(name, pack, tuple(experts), held, fitted, plan, figures, terms, notes)
    arrays = {**experts, "gate": state_arrays(fitted.gate)}
    version = publish_version(
        root, name, arrays, {"calibration": calibration.to_dict(), "card": card}, {"scores.csv": scores}
    )
    return Trained(version, scores, figures)


def model_card(
    name: str,
    pack: Pack,
    experts: Sequence[str],
    held: ScoreTable,
    fitted: GateFit,
    plan: TrainingPlan,
    figures: Mapping[str, Any],
    terms: Sequence[str],
    notes: Sequence[str],
) -> dict[str, Any]:
    """Everything a user should know of a version, as plain JSON values."""
    counts = {f"{split} {source} {'fake' if label else 'real'}": n for (split, source, label), n in
              sorted(count_table(pack).items())}  # fmt: skip
    return {
        "name": name,
        "tiny": plan.tiny,
        "made": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "notes": list(notes),
        "intended_use": "A hint for people who examine faces in photos and videos; never a decision's only ground.",
        "experts": {n: asdict(get_card(n, tiny=plan.tiny)) for n in EXPERT_NAMES if n in experts},
        "data": {
            "crops": counts,
            "framing": {k: list(v) for k, v in framing_table(pack).items()},
            "terms": list(terms),
        },
        "training": {
            "plan": asdict(plan),
            "gate_penalty": fitted.penalty if np.isfinite(fitted.penalty) else "plain mean",
            "gate_losses": fitted.losses,
            "calibration_auc": {EXPERT_NAMES[e]: round(v, 4) for e, v in expert_aucs(held).items() if np.isfinite(v)},
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "validation": figures,
    }
