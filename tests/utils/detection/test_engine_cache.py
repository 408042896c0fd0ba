"""Converted networks are made once, verified at each start, and made again when anything is wrong with them."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from utils.config import Settings
from utils.detection import engine_cache
from utils.detection.engine_cache import MANIFEST, cache_folder, cache_key, chosen_precisions, converted
from utils.detection.engines import choose_backend, load_engine
from utils.detection.openvino_engine import OpenVinoEngine
from utils.detection.pipeline import analyse, load_analyser
from utils.detection.precision import format_precisions, read_precision
from utils.detection.torch_engine import TorchEngine
from utils.errors import ConfigError, WeightsError
from utils.files import file_sha256
from utils.weights import Version, verify_version


@pytest.fixture
def version(tiny_root: Path) -> Version:
    return verify_version(tiny_root, "tiny")


@pytest.fixture
def settings(tiny_root: Path, tmp_path: Path, settings_for: Callable[..., Settings]) -> Settings:
    return settings_for(tiny_root, engine="openvino", engine_cache=str(tmp_path / "engine"))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Conversion is replaced by writing two files; the list has an entry for each time."""
    folders: list[Path] = []

    def convert(scratch: Path, settings: Settings, root: Path, version: Version) -> dict[str, Any]:
        folders.append(scratch)
        for suffix in (".xml", ".bin"):
            (scratch / f"cnn{suffix}").write_text(f"{len(folders)}{suffix}")
        files = {path.name: file_sha256(path) for path in scratch.iterdir()}
        return {"version_sha256": version.sha256, "experts": {"cnn": {"precision": "fp32"}}, "files": files}

    monkeypatch.setattr(engine_cache, "_convert", convert)
    return folders


def key(settings: Settings, root: Path, version: Version) -> str:
    return cache_key(version, chosen_precisions(settings))


def test_second_start_takes_what_the_first_made(settings, tiny_root, version, made):
    first, second = (converted(settings, tiny_root, version) for _ in range(2))
    assert first == second
    assert first.precisions == {"cnn": "fp32"}
    assert first.files["cnn"].read_text() == "1.xml"
    assert len(made) == 1
    assert [path.name for path in cache_folder(settings).glob("[!.]*")] == [key(settings, tiny_root, version)]


@pytest.mark.parametrize("damage", ["bytes", "gone", "manifest", "list", "other version", "not json"])
def test_damaged_cache_is_made_again(settings, tiny_root, version, made, damage):
    folder = converted(settings, tiny_root, version).files["cnn"].parent
    manifest = folder / MANIFEST
    content = json.loads(manifest.read_text())
    if damage == "bytes":
        (folder / "cnn.bin").write_text("!.bin")
    elif damage == "gone":
        (folder / "cnn.xml").unlink()
    elif damage == "manifest":
        manifest.unlink()
    elif damage == "list":
        manifest.write_text(json.dumps({**content, "files": {}}))
    elif damage == "other version":
        manifest.write_text(json.dumps({**content, "version_sha256": "0" * 64}))
    else:
        manifest.write_text("[1, 2")
    assert converted(settings, tiny_root, version).files["cnn"].read_text() == "2.xml"
    assert len(made) == 2


def test_many_first_starts_at_once_convert_once(settings, tiny_root, version, made):
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(converted(settings, tiny_root, version))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 6
    assert len(made) == 1


def test_what_a_killed_conversion_left_is_no_obstacle(settings, tiny_root, version, made):
    scratch = cache_folder(settings) / f".{key(settings, tiny_root, version)}.tmp"
    scratch.mkdir(parents=True)
    (scratch / "cnn.bin").write_text("half")
    converted(settings, tiny_root, version)
    assert not scratch.exists()


def test_conversion_that_fails_leaves_nothing(settings, tiny_root, version, monkeypatch):
    def fail(*given: object) -> dict[str, Any]:
        raise WeightsError("no")

    monkeypatch.setattr(engine_cache, "_convert", fail)
    with pytest.raises(WeightsError):
        converted(settings, tiny_root, version)
    assert [p for p in cache_folder(settings).iterdir() if p.is_dir()] == []


def run_instead(monkeypatch, child: str) -> None:
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **more: real([sys.executable, "-c", child], **more))


def test_conversion_that_refuses_the_version_says_why(settings, tiny_root, version, monkeypatch):
    run_instead(monkeypatch, f"print('other bytes'); raise SystemExit({engine_cache.REFUSED})")
    with pytest.raises(WeightsError, match="other bytes"):
        converted(settings, tiny_root, version)


@pytest.mark.parametrize("said", ['{"experts": {', ""])
def test_conversion_that_is_killed_leaves_torch(settings, tiny_root, version, monkeypatch, said):
    run_instead(monkeypatch, f"import os\nprint({said!r}, flush=True)\nos.kill(os.getpid(), 9)")
    monkeypatch.setattr("utils.detection.engines.choose_backend", lambda *given, **more: "openvino")
    detection = dataclasses.replace(settings.detection, engine="auto")
    engine, _ = load_engine(
        dataclasses.replace(settings, detection=detection), tiny_root, version, device="cpu", threads=1
    )
    assert isinstance(engine, TorchEngine)
    assert [p for p in cache_folder(settings).iterdir() if p.is_dir()] == []


def test_every_fact_that_matters_has_a_folder_of_its_own(version, monkeypatch):
    fp32, bf16 = (read_precision(text, bf16=True) for text in ("fp32", "bf16"))
    keys = {cache_key(version, fp32), cache_key(version, bf16)}
    keys.add(cache_key(dataclasses.replace(version, sha256="0" * 64), fp32))
    monkeypatch.setattr(engine_cache, "openvino_version", lambda: "another")
    keys.add(cache_key(version, fp32))
    assert len(keys) == 4


def test_folders_of_older_releases_are_left_aside_and_dropped_in_time(settings, tiny_root, version, made):
    old = [cache_folder(settings) / f"v{number}-0123456789abcdef" for number in range(engine_cache.KEPT)]
    for age, folder in enumerate(old):
        folder.mkdir(parents=True)
        (folder / MANIFEST).write_text('{"experts": {"cnn": {"precision": "fp32", "refused": {"bf16": 0.07}}}}')
        os.utime(folder / MANIFEST, (age, age))
    assert converted(settings, tiny_root, version).precisions == {"cnn": "fp32"}
    assert [folder.exists() for folder in old] == [False] + [True] * (engine_cache.KEPT - 1)


def test_oldest_are_dropped(settings, tiny_root, version, made, monkeypatch):
    for release in range(engine_cache.KEPT + 2):
        monkeypatch.setattr(engine_cache, "FORMAT", release)
        converted(settings, tiny_root, version)
    left = {path.parent.name for path in cache_folder(settings).glob(f"*/{MANIFEST}")}
    assert len(left) == engine_cache.KEPT
    assert key(settings, tiny_root, version) in left


def test_tiny_version_runs_converted_from_end_to_end(settings, tiny_root, tmp_path, photo, settings_for):
    from PIL import Image

    Image.fromarray(photo).save(tmp_path / "photo.png")
    analyser = load_analyser(settings)
    assert isinstance(analyser.engine, OpenVinoEngine)
    fast = analyse(tmp_path / "photo.png", analyser)
    slow = analyse(tmp_path / "photo.png", load_analyser(settings_for(tiny_root)))
    assert fast.verdict.probability == pytest.approx(slow.verdict.probability, abs=0.02)
    assert (fast.settings["engine"], slow.settings["engine"]) == ("openvino", "torch")
    assert fast.settings["precision"].startswith("cnn=")
    manifest = json.loads(next(cache_folder(settings).glob(f"*/{MANIFEST}")).read_text())
    precisions = {name: facts["precision"] for name, facts in manifest["experts"].items()}
    assert fast.settings["precision"] == format_precisions(precisions)
    assert precisions["vit"] == chosen_precisions(settings)["vit"]


def test_cache_that_cannot_be_written_leaves_torch(settings, tiny_root, version, tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    detection = dataclasses.replace(settings.detection, engine_cache=str(blocked), engine="auto")
    monkeypatch.setattr("utils.detection.engines.choose_backend", lambda *given, **more: "openvino")
    chosen = dataclasses.replace(settings, detection=detection)
    engine, _ = load_engine(chosen, tiny_root, version, device="cpu", threads=1)
    assert isinstance(engine, TorchEngine)
    asked = dataclasses.replace(chosen, detection=dataclasses.replace(detection, engine="openvino"))
    with pytest.raises(ConfigError, match="engine_cache"):
        load_engine(asked, tiny_root, version, device="cpu", threads=1)


@pytest.mark.parametrize(
    ("engine", "device", "tiny", "gpu", "expected"),
    [
        ("auto", "cpu", False, True, "openvino"),
        ("auto", "auto", False, False, "openvino"),
        ("auto", "auto", False, True, "torch"),
        ("auto", "cuda", False, True, "torch"),
        ("auto", "cpu", True, False, "torch"),
        ("torch", "cpu", False, False, "torch"),
        ("openvino", "auto", True, True, "openvino"),
    ],
)
def test_backend_follows_engine_and_device(monkeypatch, engine, device, tiny, gpu, expected):
    monkeypatch.setattr("utils.detection.engines.has_gpu", lambda: gpu)
    assert choose_backend(engine, device, tiny=tiny) == expected


def test_openvino_on_a_gpu_is_refused():
    with pytest.raises(ConfigError, match="torch or auto"):
        choose_backend("openvino", "cuda", tiny=False)
