"""A worker whose learning is made of small functions: what the tests of the quarantine and the jobs need of it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.web_app.helpers import media_bytes, order_of, running_worker, upload, wait_until
from utils.config import Settings
from utils.feedback.cached_judge import Said
from utils.feedback.history import append_training
from utils.feedback.quarantine import LearningItem
from utils.weights import current_version
from web_app.db.models import CHECK, TRAIN
from web_app.feedback.learner import Learner, Progress
from web_app.feedback.training import run_check, run_training
from web_app.jobs.runner import WorkerTasks
from web_app.jobs.shared import Instance
from web_app.paths import InstancePaths
from web_app.worker import LearningTasks

FIGURES = {"auc": 0.9, "ece": 0.05, "accuracy": 0.8, "slices": {"source a": 0.85}, "count": 20}


@dataclass(frozen=True)
class Features:
    text: str

    def save(self, path: Path) -> None:
        path.write_text(self.text)


@dataclass(frozen=True)
class Look:
    faces: Mapping[int | None, Features | str]
    phash: int | None


def look(path: Path, faces: Sequence[int | None]) -> Look:
    """Files whose order has the same word after `like` look the same; `small` ones are outside the domain."""
    order = order_of(path.read_bytes())
    if "small" in order or order == "no_face":
        return Look(dict.fromkeys(faces, "The face is too small."), None)
    alike = order.partition("like ")[2] or order
    held = {face: Features(f"{face}") for face in faces}
    return Look(held, int(hashlib.sha256(alike.encode()).hexdigest()[:16], 16))


class Trainer:
    """Notes what it is given, waits if it is told to, and writes its line into the history."""

    def __init__(self, history: Path, promoted: bool = True) -> None:
        self.history = history
        self.promoted = promoted
        self.rounds: list[list[LearningItem]] = []
        self.served, self.says = "v0", {0: "real", 1: "fake"}
        self.go_on = threading.Event()
        self.go_on.set()
        self.stop = threading.Event()

    def __call__(self, items: Sequence[LearningItem], progress: Progress, job: str, digest: str) -> dict[str, Any]:
        self.rounds.append(list(items))
        while not self.go_on.wait(0.02):
            progress("learn", 0.5)
        outcome = {
            "version": f"cand-{len(self.rounds)}", "base": "v0", "parent": "v0", "promoted": self.promoted,
            "reason": "because", "old": FIGURES, "new": {**FIGURES, "auc": 0.91}, "improvements": 2, "regressions": 1,
            "loss": 0.5, "accuracy_before": 0.25, "accuracy_after": 0.75,
        }  # fmt: skip
        append_training(self.history, {"event": "training", **outcome})
        return outcome

    def check(self, items: Sequence[LearningItem], progress: Progress) -> tuple[str, list[Said]]:
        return self.served, [Said(item.row_id, item.label, self.says[item.label], 0.5) for item in items]


def nothing_to_check(items: Sequence[LearningItem], progress: Progress) -> tuple[str, list[Said]]:
    return "v0", []


class FakeLearner(Learner):
    """A learner of functions."""

    def __init__(
        self,
        look: Callable[[Path, Sequence[int | None]], Any],
        train: Callable[[Sequence[LearningItem], Progress, str, str], dict[str, Any]],
        fingerprint: Callable[[], str] = lambda: "networks",
        check: Callable[[Sequence[LearningItem], Progress], tuple[str, list[Said]]] = nothing_to_check,
    ) -> None:
        self.look = look
        self.train = train
        self.fingerprint = fingerprint
        self.check = check

    def voice_fingerprint(self) -> str:
        return ""

    def is_whole(self, features: Path) -> bool:
        return features.is_file()


@contextmanager
def hand_in_worker(settings: Settings, promoted: bool = True) -> Iterator[Trainer]:
    """A worker in a thread with the fake analysis and the functions above."""
    trainer = Trainer(InstancePaths.of(settings).training_history, promoted)
    learner = FakeLearner(look, trainer, check=trainer.check)
    with closing(Instance.of(settings)) as instance:
        tasks = WorkerTasks(
            background={TRAIN: partial(run_training, instance, learner), CHECK: partial(run_check, instance, learner)},
            when_idle=LearningTasks(instance, learner).when_idle,
            facts=lambda: {"model_version": current_version(settings)},
        )
        with running_worker(settings, tasks=tasks) as trainer.stop:
            try:
                yield trainer
            finally:
                trainer.go_on.set()


def say(client: FlaskClient, order: str, label: str, **keywords: Any) -> tuple[str, TestResponse]:
    """Upload a file, and call it real or fake; the id and the answer."""
    report = upload(client, media_bytes(order=order), "/api/detect?wait=1", **keywords).get_json()
    judgement = "correct" if report["prediction"] == label else "incorrect"
    return report["id"], client.post(
        "/api/feedback", json={"id": report["id"], "feedback": judgement, "actual": label}, **keywords
    )


def say_accepted(client: FlaskClient, order: str = "fake", label: str = "real") -> str:
    """The id of an analysis on which a vote was given that a worker has accepted."""
    public_id, _ = say(client, order, label)
    wait_for_state(client, public_id, "accepted")
    return public_id


def state_of(client: FlaskClient, public_id: str, **keywords: Any) -> str:
    return str(client.get(f"/api/detections/{public_id}", **keywords).get_json()["feedback"]["state"])


def wait_for_state(client: FlaskClient, public_id: str, state: str, **keywords: Any) -> None:
    wait_until(lambda: state_of(client, public_id, **keywords) == state)


def ended_training(client: FlaskClient, address: str) -> dict[str, Any]:
    def look_again() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(address).get_json()
        return found if found["state"] in ("done", "failed", "cancelled") else None

    ended: dict[str, Any] = wait_until(look_again)
    return ended
