"""Workers that follow the versions of other machines, with a stand-in for the networks, and a training without any."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.web_app.helpers import fake_analyse
from utils.config import Settings
from utils.feedback.history import append_training
from utils.feedback.versions import activate, next_name, pointer_lock, publish_candidate
from utils.types import Report
from utils.weights import SPEECH_FOLDER, current_name, verify_version, weights_root
from web_app.feedback.model_handle import ModelHandle
from web_app.jobs.runner import Analyse, Progress, WorkerTasks
from web_app.jobs.shared import Instance


def learn(instance: Instance, *, promoted: bool = True, speech: bool = False) -> str:
    """What a training does to versions and history, without the training."""
    root, history = weights_root(instance.settings), instance.paths.training_history
    if speech:
        root, history = root / SPEECH_FOLDER, instance.paths.speech_history
    base = verify_version(root, current_name(root))
    first = base.base
    name = next_name(root, first)
    entry = {"event": "training", "version": name, "parent": base.name, "base": first, "promoted": promoted}
    remembered = {"faces": np.zeros((2, 4), np.float32)}
    publish_candidate(root, name, verify_version(root, first), remembered, entry)
    append_training(history, entry)
    if promoted:
        with pointer_lock(root):
            activate(root, name, history, "promotion")
    return name


def following(instance: Instance) -> tuple[Analyse, WorkerTasks]:
    """An analysis whose report names the version at its begin and at its end, and what a worker does before it."""

    def load(settings: Settings, **_: Any) -> Any:
        name = current_name(weights_root(settings))
        return SimpleNamespace(version=name, version_sha256="", experts=(), missing={}, engine=None, speech=None)

    handle = ModelHandle(instance.settings, load)

    def analyse(path: Path, progress: Progress) -> Report:
        before = handle.analyser.version
        report = fake_analyse(path, progress)
        return dataclasses.replace(report, model_version=f"{before} {handle.analyser.version}")

    def before_job() -> None:
        instance.shared.follow()
        handle.refresh()

    return analyse, WorkerTasks(before_job=before_job, facts=lambda: {"model_version": handle.analyser.version})
