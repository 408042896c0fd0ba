"""Train everything, in order: pack faces, store features, four experts, gate, calibration, a version, its figures.

`train.py` and `quick_train.py` are thin shells around `train_all`. Every stage writes into the run's folder and is
taken up again where it was stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from models.vision_transformer import ViTExpert, build_vit
from utils.errors import TrainingDataError
from utils.evaluation.layouts import Sample
from utils.faces.detector import FaceDetector
from utils.files import replace_file
from utils.networks import load_vit_base
from utils.tensors import Arrays, load_into, pack_tensors, read_tensors, state_arrays
from utils.training import processes
from utils.training.crop_set import Pack, find_twins, pack_faces, places, without_names, without_twins
from utils.training.experts import new_network, train_lstm, train_student, train_vit_head
from utils.training.features import FeatureStore, head_views, make_stores, student_views
from utils.training.loop import tell
from utils.training.planning import CLEAN, RECODED, TrainingPlan, head_weights
from utils.training.publishing import Trained, assemble, finish, learned_sources
from utils.training.scoring import clip_sequences, why_no_sequences
from utils.training.strangers import Strangers, cross_fitted, of_generator, of_source
from utils.training.traces import Traces, fit_traces, load_autoencoder
from utils.types import MediaKind
from utils.weights import FROZEN, require_new_name, verify_version

CLAIMED = {
    "tiny": "networks of another size",
    "samples": "other files, labels or splits",
    "leave_out": "others left out",
    "start": "another start",
    "views": "other views",
}
"""What a run is of, by the names in its `run.json`: with others it is another run."""


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
    packs: Path | None = None,
    autoencoder: Path | None = None,
) -> Trained:
    """Train the four experts, the gate and the calibration, and publish them as a version.

    Args:
        samples: with splits train, calib and val.
        run: folder of this run: packs, features, checkpoints, metrics, scores.
        packs: folder of the packed crops, so that several runs on the same files share them; None keeps them in `run`.
        autoencoder: weights of TAEF2, for the measure of decoders' traces; None for a head without it.

    Raises:
        TrainingDataError: a split lacks a class, `run` holds another training's work, or `autoencoder` is none.
        WeightsError: the name is taken, which is said before any work is done.
    """
    require_new_name(root, name)
    require_start(root, plan)
    decoder = load_autoencoder(autoencoder) if autoencoder else None
    folder = packs or run / "pack"
    pack = processes.in_turn(lambda: packed(samples, run, plan, detector, folder))
    reference = _base_vit(root, plan)
    stores = make_stores(pack, run, plan, reference, device=device, decoder=decoder)
    traces = fit_traces(stores[RECODED], stores[CLEAN]) if RECODED in stores else None
    experts = train_experts(pack, stores, run, root, plan, reference, device=device, traces=traces)
    strangers = score_strangers(pack, stores, run, root, plan, traces=traces)
    processes.leave_to_first()
    said = [*notes, *(f"Trained and calibrated without {name}; validation has it." for name in plan.leave_out)]
    if RECODED in stores:
        said.append(
            f"The ViT's head measures decoders' traces, learned from {len(stores[RECODED].views)} real pictures that "
            "went through TAEF2 (madebyollin/taesd, MIT), distilled from the autoencoder of FLUX.2."
        )
    return finish(
        pack, stores, experts, run, root, name, plan,
        device=device, terms=terms, notes=said, strangers=strangers,
    )  # fmt: skip


def packed(samples: Sequence[Sample], run: Path, plan: TrainingPlan, detector: FaceDetector, folder: Path) -> Pack:
    """The faces of all samples, without leaks between the splits and without what is to be left out.

    Raises:
        TrainingDataError: a split has no pictures of one class, or `run` holds the work of another training.
    """
    claim_run(run, samples, plan)
    pack = pack_faces(samples, folder, detector)
    for left_out in pack.without_face:
        tell(f"no face was found in {left_out}")
    for left_out, reason in pack.unreadable.items():
        tell(f"{left_out} cannot be read: {reason}")
    pack = _without_leaks(pack)
    if plan.leave_out:
        pack = without_names(pack, plan.leave_out)
    _check_splits(pack)
    return pack


def score_strangers(
    pack: Pack,
    stores: Mapping[str, FeatureStore],
    run: Path,
    root: Path,
    plan: TrainingPlan,
    *,
    traces: Traces | None = None,
) -> Strangers | None:
    """Scores by heads that have not seen a part of the sources, and by heads without a part of the generators.

    None where nothing can be left out: there is one source alone, or the plan has no folds.
    """
    train, calib, held = head_views(stores), stores["calib"], (CLEAN, "calib", "calib_hard", "calib_clips", "val")
    if not plan.folds or len({of_source(view, pack.rows) for view in train.views}) < 2:
        return None
    own = {name: stores[name] for name in held if name in stores}
    fitted = partial(
        cross_fitted, train, calib,
        rows=pack.rows, recipe=plan.vit, folder=run / "strangers", folds=plan.folds, tiny=plan.tiny,
        start=_begun(root, plan.start, "vit"), learned=learned_sources(root, plan.start) if plan.start else (),
        traces=traces,
    )  # fmt: skip
    return Strangers(fitted(own), fitted({"val": stores["val"]}, name_of=of_generator))


def claim_run(run: Path, samples: Sequence[Sample], plan: TrainingPlan) -> None:
    """Make a folder the folder of this training, so that nothing of another one is ever taken up in it.

    Raises:
        TrainingDataError: it has the features of another one.
    """
    run.mkdir(parents=True, exist_ok=True)
    claim = run / "run.json"
    held = json.loads(claim.read_text(encoding="utf-8")) if claim.is_file() else {}
    # a file that moved from training to validation would make the figures of what was trained before a lie
    told = [
        (Path(place), s.label, s.source, s.group, s.split)
        for place, s in zip(places(s.path for s in samples), samples, strict=True)
    ]
    own = {
        "tiny": plan.tiny,
        "samples": hashlib.sha256(repr(told).encode()).hexdigest(),
        "leave_out": sorted(plan.leave_out),
        "start": plan.start,
        "views": [plan.views, plan.beside],
    }
    other = [what for name, what in CLAIMED.items() if held.get(name) != own[name]]
    if held and other and (run / "features").is_dir():
        raise TrainingDataError(f"{run} holds a training with {', '.join(other)}; name another --run.")
    if held != own:  # several processes may read it at once
        replace_file(claim, (json.dumps(own) + "\n").encode())


def _without_leaks(pack: Pack) -> Pack:
    """Leave out of training and calibration what is also, nearly the same, in a more protected split; and say so."""
    files = {row.row: row.file for row in pack.rows}
    twins = find_twins(pack)
    for row, kept in twins.items():
        tell(f"{files[row]} is left out: it shows the same picture as {files[kept]} of another split")
    return without_twins(pack, twins)


def _check_splits(pack: Pack) -> None:
    for split in ("train", "calib", "val"):
        labels = {r.label for r in pack.select(split, MediaKind.IMAGE)}
        if labels != {0, 1}:
            found = " and ".join(("real", "fake")[label] for label in sorted(labels)) or "neither"
            raise TrainingDataError(f"The split {split} needs real and fake pictures with faces; it has {found}.")


def stored_vit(expert: ViTExpert, plan: TrainingPlan) -> Arrays:
    """What a version keeps of a ViT: its head; everything else comes from the base."""
    state = state_arrays(expert)
    kept = state if plan.tiny else {k: v for k, v in state.items() if k.startswith("head.")}
    return pack_tensors(kept, int8=False)


def _base_vit(root: Path, plan: TrainingPlan) -> ViTExpert:
    # the same each time: features are made with one of them, and a head is trained in another
    expert = new_network(build_vit, tiny=plan.tiny, seed=plan.vit.seed)
    if not plan.tiny:
        load_vit_base(expert, root / "base")
    return expert


def require_start(root: Path, plan: TrainingPlan) -> None:
    """Refuse, before any work is done, a start that is not there or has seen what is to be left out.

    Raises:
        WeightsError: there is no such version, or it is damaged.
        TrainingDataError: something is left out; the start may have been trained on it.
    """
    if not plan.start:
        return
    if plan.leave_out:
        seen = f"{plan.start} may have seen {plan.leave_out[0]}"
        raise TrainingDataError(f"{seen}: a training that leaves something out starts from scratch.")
    verify_version(root, plan.start)


def _begun(root: Path, version: str, name: str) -> Arrays | None:
    """The weights of a version's expert, verified; None without a version.

    Raises:
        WeightsError: there is no such version, or it is damaged.
    """
    if not version:
        return None
    return read_tensors(verify_version(root, version).folder / f"{name}.safetensors")


def train_experts(
    pack: Pack,
    stores: Mapping[str, FeatureStore],
    run: Path,
    root: Path,
    plan: TrainingPlan,
    reference: ViTExpert,
    *,
    device: str,
    traces: Traces | None = None,
) -> dict[str, Arrays]:
    """Train the experts and give their weights as they will be stored."""
    train = student_views(stores)
    calib = stores["calib"]
    vit = reference.cpu()
    of_head = head_views(stores)
    weights = head_weights(of_head.views, pack.rows)
    if plan.start:
        load_into(vit, _begun(root, plan.start, "vit") or {}, what="vit", strict=False)
    vit = train_vit_head(of_head, calib, plan.vit, run / "vit", expert=vit, weights=weights, traces=traces)
    if plan.keep:
        kept = {name: pack_tensors(_begun(root, plan.start, name) or {}, int8=True) for name in FROZEN}
        return {**kept, "vit": stored_vit(vit, plan)}
    arrays = {}
    for name, recipe in (("cnn", plan.cnn), ("resnext", plan.resnext)):
        start = _begun(root, plan.start, name)
        student = train_student(name, train, calib, recipe, run / name, start=start, device=device, tiny=plan.tiny)
        arrays[name] = pack_tensors(state_arrays(student), int8=True)
    arrays["vit"] = stored_vit(vit, plan)
    if why := why_no_sequences(pack):
        tell(f"The LSTM is not trained. {why}")
    else:
        stored = assemble(arrays, root, tiny=plan.tiny)
        blends, coded = plan.clip_blends, plan.h264_clips
        data = clip_sequences(stored, pack, run / "clips", blends, device=device, seed=plan.lstm.seed, h264=coded)
        held = clip_sequences(stored, pack, run / "clips_calib", blends, split="calib", device=device, h264=coded)
        lstm = train_lstm(*data, *held, plan.lstm, run / "lstm", tiny=plan.tiny)
        arrays["lstm"] = pack_tensors(state_arrays(lstm), int8=True)
    return arrays
