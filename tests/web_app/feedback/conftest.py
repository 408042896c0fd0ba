"""A server that learns with tiny networks: a version with golden set and replay buffer of its own and a real worker."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from scipy.io import wavfile

from tests.speech_fixtures import speech_version
from tests.web_app.helpers import make_settings, running_worker
from utils.config import DetectionSettings, LearningSettings, Settings, WeightsSettings
from utils.detection.pipeline import Analyser, analyse, load_analyser
from utils.detection.torch_engine import TorchEngine
from utils.faces.crops import crop_for_networks, measure_quality
from utils.faces.detector import CenterFaceDetector
from utils.feedback.feature_set import FeatureSet, save_features
from utils.files import file_sha256
from utils.tensors import read_tensors
from utils.training.publishing import write_lineage
from utils.types import Floats, Pixels, Report
from utils.weights import SPEECH_FOLDER, SPEECH_HEAD_FILE, frozen_fingerprint, verify_version
from web_app.feedback.learner import Learner
from web_app.feedback.model_handle import ModelHandle
from web_app.jobs.derived import CleanCopies
from web_app.jobs.runner import Progress
from web_app.jobs.shared import Instance
from web_app.worker import worker_tasks

GOLDEN_ITEMS = 24


def picture(photo: Pixels, brightness: float = 1.0, tint: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> bytes:
    """The portrait as PNG, changed so that it is another file."""
    changed = np.clip(photo * np.array(tint) * brightness, 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(changed).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(autouse=True)
def as_soon_as_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of tests do not stand back behind what else the machine does."""
    monkeypatch.setattr("web_app.feedback.learner.NICE", 0)


@pytest.fixture
def learning_settings(own_root: Path, tmp_path: Path) -> Settings:
    """Settings over the tiny version, with a quorum of two."""
    return dataclasses.replace(
        make_settings(tmp_path),
        weights=WeightsSettings(dir=str(own_root)),
        detection=DetectionSettings(device="cpu", threads=1),
        learning=LearningSettings(quorum=2),
    )


@pytest.fixture(scope="session")
def portrait_features(
    analyser: Analyser, photo: Pixels, face_detector: CenterFaceDetector
) -> Callable[[int], tuple[FeatureSet, ...]]:
    """A function that gives what `lineage` makes its two sets of."""
    engine = analyser.engine
    assert isinstance(engine, TorchEngine)
    face = max(face_detector.detect(photo), key=lambda found: found.box.width)

    @cache
    def make(portrait_label: int) -> tuple[FeatureSet, ...]:
        rng = np.random.default_rng(5)
        return tuple(_features(engine, photo, face, rng, portrait_label) for _ in range(2))

    return make


@pytest.fixture
def lineage(own_root: Path, portrait_features: Callable[[int], tuple[FeatureSet, ...]]) -> Callable[[int], None]:
    """A function that gives the tiny version a golden set and a replay buffer.

    In both, portraits have the label that is handed in, and noise has the other one: what a correction of the portrait
    teaches is then also right on the golden set, or with the other label wrong.
    """

    def build(portrait_label: int) -> None:
        version = verify_version(own_root, "tiny")
        folder = own_root / "learning" / "tiny"
        folder.mkdir(parents=True)
        for name, features in zip(("golden", "replay"), portrait_features(portrait_label), strict=True):
            facts = {"name": name, "experts": frozen_fingerprint(version), "version": "tiny"}
            save_features(folder / f"{name}.safetensors", features, facts)
        sums = {path.name: file_sha256(path) for path in folder.glob("*.safetensors")}
        (folder / "checksums.json").write_text(json.dumps(sums))

    return build


def _features(
    engine: TorchEngine, photo: Pixels, face: object, rng: np.random.Generator, portrait_label: int
) -> FeatureSet:
    rows = []
    for i in range(GOLDEN_ITEMS):
        portrait = i % 2 == 0
        frame = np.clip(photo * rng.uniform(0.7, 1.2), 0, 255).astype(np.uint8)
        crop = crop_for_networks(frame, face)  # type: ignore[arg-type]
        pixels = crop.pixels if portrait else rng.integers(0, 256, crop.pixels.shape, dtype=np.uint8)
        answers = engine.run([pixels])
        assert answers.tokens is not None
        quality = measure_quality(pixels, crop.source_px, crop.detector_score)
        rows.append(
            (
                answers.tokens.astype(np.float16),
                engine.person_logits(answers),
                quality,
                portrait_label if portrait else 1 - portrait_label,
            )
        )
    labels = np.array([row[3] for row in rows], np.float32)
    tokens = np.concatenate([row[0] for row in rows]).astype(np.float32)
    # else the portrait would be known again; what all dimensions have in common, the head's norms take away
    sign = np.where(np.arange(GOLDEN_ITEMS) // 2 % 2, 4.0, -4.0).astype(np.float32)[:, None, None]
    tokens += sign * (tokens - tokens.mean(0)).std()
    names = tuple(f"item-{i}" for i in range(GOLDEN_ITEMS))
    return FeatureSet(
        tokens=tokens, starts=np.arange(GOLDEN_ITEMS + 1),
        logits=np.stack([row[1] for row in rows]), quality=np.stack([row[2] for row in rows]).astype(np.float32),
        labels=labels, sources=("made",) * GOLDEN_ITEMS,
        generators=tuple("gan" if label else "-" for label in labels), groups=names, keys=names,
    )  # fmt: skip


@contextmanager
def learning_worker(settings: Settings) -> Iterator[ModelHandle]:
    """The real worker, its networks and its learning, in a thread; it has ended when the block ends."""
    served = ModelHandle(settings, load_analyser)
    learner = Learner(settings, served)

    def run(path: Path, progress: Progress) -> Report:
        hash_it, keep = partial(learner.keep_hash, path), partial(learner.keep, path)
        return analyse(path, served.analyser, progress=progress, on_media=hash_it, on_scores=keep)

    with closing(Instance.of(settings)) as instance:
        copies = CleanCopies(instance, lambda: None)
        tasks = worker_tasks(instance, served, learner, copies, ())
        with running_worker(settings, run, tasks=tasks):
            yield served


@pytest.fixture
def learning_client(make_app: Callable[..., Flask], learning_settings: Settings) -> FlaskClient:
    return make_app(learning_settings).test_client()


def wav(samples: Floats) -> bytes:
    stream = io.BytesIO()
    wavfile.write(stream, 16000, (samples * 32767).astype(np.int16))
    return stream.getvalue()


def golden(folder: Path, seed: int) -> FeatureSet:
    """Recordings far from each other, whose labels are what the head says of them."""
    head = read_tensors(folder / SPEECH_HEAD_FILE)
    rng = np.random.default_rng(seed)
    tokens = rng.normal(size=(GOLDEN_ITEMS, 1, len(head["weight"]))).astype(np.float32)
    said = tokens[:, 0] @ head["weight"]
    labels = (said > np.median(said)).astype(np.float32)
    names, none = tuple(f"{seed}-{i}" for i in range(GOLDEN_ITEMS)), np.zeros((GOLDEN_ITEMS, 1), np.float32)
    fakes = tuple("made" if label else "-" for label in labels)
    return FeatureSet(
        tokens, np.arange(GOLDEN_ITEMS + 1), none, none, labels, ("made",) * GOLDEN_ITEMS, fakes, names, names
    )


@pytest.fixture
def speech_root(own_root: Path) -> Path:
    """A version of speech that can learn."""
    root = own_root / SPEECH_FOLDER
    root.mkdir()
    version = speech_version(root)
    write_lineage(root, version.name, golden(version.folder, 1), golden(version.folder, 2))
    return root


def opposite(report: dict[str, Any]) -> str:
    """What its voice is not, by what is likelier."""
    return "real" if report["speech"]["verdict"]["probability"] >= 0.5 else "fake"


def say_of_voice(client: FlaskClient, report: dict[str, Any], **more: str) -> str:
    label = opposite(report)
    body = {"id": report["id"], "feedback": "incorrect", "actual": label, **more}
    answer = client.post("/api/feedback", json=body)
    assert answer.status_code == 201, answer.get_json()
    assert answer.get_json()["outlook"] == "will_be_learned"
    return label
