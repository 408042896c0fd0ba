"""What tests of several rooms share: a version of tiny networks, a photo of one person, and the real face detector."""

from __future__ import annotations

import dataclasses
import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from skimage.data import astronaut

from tests import ensembles
from utils.base_weights import FACE_FILE
from utils.config import DetectionSettings, MediaSettings, Settings, WeightsSettings
from utils.detection.pipeline import Analyser, load_analyser
from utils.faces.detector import CenterFaceDetector
from utils.types import Pixels

hypothesis.settings.register_profile("telltale", deadline=None, derandomize=True)
hypothesis.settings.load_profile("telltale")  # a busy machine is slow, and a failure must come back on the next run

pytest_plugins = ["tests.learning_fixtures"]

LONG = {
    "test_train.py", "test_axe.py", "test_engines.py", "test_http.py", "test_scale.py", "test_reliability.py",
    "test_poisoning.py", "test_score_record.py", "test_docs_blocks.py", "test_bench.py", "test_abuse.py",
    "test_bombs.py", "test_app.py", "test_extension.py", "test_flow.py",
}  # fmt: skip
"""Files that take longest. They begin, so that at the end no process waits for the other."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


def pytest_collection_finish() -> None:
    """What all tests share is searched for rubbish no more: with thousands of them a search takes most of a second."""
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # or libraries that look at their end for what was never freed would complain


@pytest.fixture(autouse=True)
def no_real_time() -> Iterator[None]:
    """Fails where a test leaves the process before all others: what it starts from then on would stop the machine."""
    yield
    assert not hasattr(os, "sched_getscheduler") or os.sched_getscheduler(0) == os.SCHED_OTHER


@pytest.fixture(scope="session", autouse=True)
def _impatient_disk() -> Iterator[None]:
    """No test waits until the disk holds what it writes: a power cut is none of theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _compiled_once() -> Iterator[None]:
    """Face detectors of one process share their compiled networks, each with a request of its own."""
    made: dict[tuple[str, str], Any] = {}
    build = CenterFaceDetector._compiled

    def once(detector: CenterFaceDetector, hint: str) -> Any:
        key = (hint, str(detector._options))
        if key not in made:
            made[key] = build(detector, hint)
        return made[key].get_compiled_model().create_infer_request()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CenterFaceDetector, "_compiled", once)
        yield


@pytest.fixture(scope="session")
def base_folder() -> Path:
    """The verified base weights of this checkout."""
    if not (ensembles.BASE / FACE_FILE).is_file():
        pytest.skip("the base weights are not set up (make setup)")
    return ensembles.BASE


@pytest.fixture(scope="session")
def publish_tiny(base_folder: Path) -> Callable[..., Path]:
    """Publishes a version `tiny` of the named experts under a root that it makes current, and gives the root back."""

    return ensembles.publish_tiny


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory, publish_tiny: Callable[..., Path]) -> Path:
    """Folder of weights with the version `tiny`, all four experts; to be read only."""
    return publish_tiny(tmp_path_factory.mktemp("tiny") / "trained_models")


@pytest.fixture
def own_root(tmp_path: Path, tiny_root: Path) -> Path:
    """A copy of `tiny_root` that a test may damage (`base` stays a link)."""
    return Path(shutil.copytree(tiny_root, tmp_path / "trained_models", symlinks=True))


@pytest.fixture(scope="session")
def settings_for() -> Callable[..., Settings]:
    """Settings on one thread of the CPU for a folder of weights; keywords replace keys of [detection] and [media]."""

    def build(root: Path, **keys: object) -> Settings:
        media_keys = {f.name for f in dataclasses.fields(MediaSettings)}
        of_media = {k: v for k, v in keys.items() if k in media_keys}
        of_detection = {k: v for k, v in keys.items() if k not in media_keys}
        return dataclasses.replace(
            Settings(),
            media=MediaSettings(**of_media),
            detection=DetectionSettings(**{"device": "cpu", "threads": 1, **of_detection}),
            weights=WeightsSettings(dir=str(root)),
        )

    return build


@pytest.fixture(scope="session")
def analyser(tiny_root: Path, settings_for: Callable[..., Settings]) -> Analyser:
    """The whole analysis with the version `tiny`, by torch; to be read only."""
    return load_analyser(settings_for(tiny_root))


@pytest.fixture(scope="session")
def photo() -> Pixels:
    """A portrait, (512, 512, 3): one person whose face is about 100 pixels wide, right of the middle at the top."""
    pixels = np.ascontiguousarray(astronaut(), dtype=np.uint8)
    pixels.setflags(write=False)
    return pixels


@pytest.fixture(scope="session")
def face_detector(base_folder: Path) -> CenterFaceDetector:
    """The product's face detector, on one thread."""
    return CenterFaceDetector(base_folder / FACE_FILE, threads=1)
