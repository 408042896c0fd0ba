"""A trained network of speech as a version: its trunk as ONNX, its calibrated head, band, card and checksums."""

from __future__ import annotations

import dataclasses
import datetime
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.cards import SPEECH
from models.speech_model import SpeechNetwork
from utils.detection.calibration import Calibration
from utils.detection.export import Asked, export_onnx
from utils.evaluation.speech_figures import calibrate, figures_of, write_scores
from utils.feedback.feature_set import CachedItem, FeatureSet, join_features, pseudonym
from utils.speech.judge import load_speech
from utils.speech.spectrogram import BANDS, WINDOW_FRAMES, window_starts
from utils.training.loop import tell
from utils.training.publishing import in_golden_half, media_key, write_lineage
from utils.training.speech import (
    WINDOW_STEP,
    SpeechPlan,
    all_views,
    encoded,
    fit,
    read_recordings,
    score,
    untrained,
    with_copies,
)
from utils.training.speech_linear import Recording, left_out
from utils.types import Floats
from utils.weights import SPEECH_FILE, Version, publish_version, require_new_name

LEAST_SHRUNK = 50_000
"""Numbers in a matrix that is kept as int8."""


def publish_speech(
    root: Path,
    name: str,
    network: SpeechNetwork,
    calibration: Calibration,
    card: Mapping[str, Any],
    *,
    scale: float = 1.0,
    shift: float = 0.0,
) -> Version:
    """Write a version of the network of speech.

    Args:
        card: of the version; `tiny` in it for networks that no people shall be served with.
        scale: of its logits, from Platt scaling.
        shift: added to them then.

    Raises:
        WeightsError: the name is taken or not allowed.
    """
    weight, bias = (part.detach().numpy() * np.float32(scale) for part in network.head())
    head = {"weight": weight, "bias": bias + np.float32(shift)}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / SPEECH_FILE
        axes = {"input": {0: "batch"}, "feature": {0: "batch"}}
        example = torch.zeros(2, WINDOW_FRAMES, BANDS)
        # what the head reads, alone: a head that learned from feedback then leaves the graph as it is
        trunk = Asked(network.eval(), lambda network, spectrogram: network(spectrogram).feature)
        export_onnx(trunk, (example,), path, ["input"], ["feature"], axes)
        documents = {"calibration": calibration.to_dict(), "card": {**card, "name": name}}
        shrink(path)
        return publish_version(root, name, {"head": head}, documents, {SPEECH_FILE: path})


def shrink(path: Path) -> None:
    """Keep large matrices of a graph as int8 with a scale per output channel, where their values are such already."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(path))
    graph = model.graph
    for held in list(graph.initializer):
        matrix = numpy_helper.to_array(held)
        if matrix.dtype != np.float32 or matrix.ndim < 2 or matrix.size < LEAST_SHRUNK:
            continue
        turned = any(node.op_type == "MatMul" and held.name in node.input for node in graph.node)
        axis = matrix.ndim - 1 if turned else 0
        others = tuple(i for i in range(matrix.ndim) if i != axis)
        scale = np.maximum(np.abs(matrix).max(others, keepdims=True), 1e-12) / np.float32(127)
        whole = np.rint(matrix / scale)
        if not np.allclose(whole * scale, matrix, atol=1e-6):
            continue  # the recurrent branch is no multiple of anything
        name = held.name
        graph.initializer.remove(held)
        graph.initializer.append(numpy_helper.from_array(whole.astype(np.int8), name + ".int8"))
        graph.initializer.append(numpy_helper.from_array(scale.ravel().astype(np.float32), name + ".scale"))
        graph.node.insert(0, helper.make_node("DequantizeLinear", [name + ".int8", name + ".scale"], [name], axis=axis))
    onnx.save(model, str(path))


def train_speech(
    data: Path, run: Path, root: Path, name: str, plan: SpeechPlan, *, terms: Sequence[str], notes: Sequence[str]
) -> Version:
    """Train, calibrate and publish a version; a stopped run goes on where it was.

    Raises:
        TrainingDataError: the data cannot be used.
        WeightsError: the name is taken or not allowed.
    """
    require_new_name(root, name)
    recordings = with_copies(read_recordings(data), plan)
    views = all_views(recordings, plan, run / "views")
    network = untrained(plan, root.parent / "base")
    windows = encoded(network, recordings, views, plan.seed)
    crossed = left_out(network, recordings, windows)
    network = fit(network, recordings, windows, plan, run)
    scores = score(network, recordings, views)
    write_scores(scores, run / "scores.csv")
    scale, shift, calibration = calibrate(scores)
    counts = Counter(f"{r.split} {r.kind} {'fake' if r.label else 'real'}" for r in recordings)
    card = {
        "made": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "network": dataclasses.asdict(SPEECH),
        "plan": dataclasses.asdict(plan),
        "data": {"recordings": dict(sorted(counts.items())), "terms": list(terms)},
        "notes": list(notes),
        "left_out_in_turn": crossed,
        "validation": figures_of(scores),
    }
    version = publish_speech(root, name, network, calibration, card, scale=scale, shift=shift)
    write_speech_lineage(version, recordings, views)
    return version


def write_speech_lineage(version: Version, recordings: Sequence[Recording], views: Sequence[Sequence[Floats]]) -> None:
    """Write golden set and replay buffer of a version: each is half of the sources of the validation recordings, the
    buffer the larger one, since what is learned reaches to the nearest recording of it.

    Recordings that were trained on, which the network knows by heart, cannot show what it is about to forget.
    """
    judge = load_speech(version.folder.parent, version.name)
    halves: dict[bool, list[FeatureSet]] = {True: [], False: []}
    for recording, (view, *_) in zip(recordings, views, strict=True):
        if recording.split != "val":
            continue
        windows = judge.features(view.astype(np.float32), window_starts(len(view), WINDOW_STEP))[:, None]
        part = CachedItem(windows.astype(np.float16), none := np.zeros(1, np.float32), none, "").as_features(
            label=recording.label, source=recording.source, key=media_key(str(recording.path))
        )
        family = (recording.family if recording.label else "-",)
        speaker = (pseudonym(recording.speaker or recording.path.name),)
        halves[in_golden_half(recording.source)].append(dataclasses.replace(part, generators=family, groups=speaker))
    if any({float(part.labels[0]) for part in half} != {0.0, 1.0} for half in halves.values()):
        tell("The validation recordings come from too few sources, so this version learns nothing from feedback.")
        return
    golden, replay = (join_features(half) for half in sorted(halves.values(), key=len))
    write_lineage(version.folder.parent, version.name, golden, replay)
