"""The score record runs on tiny networks, is the same twice, and notices one changed digit."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.score_record.__main__ import make_record
from benchmarks.score_record.compare import compare
from benchmarks.score_record.files import write_files

FILES = ("astronaut.png", "short.webm", "tiny.png")


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory, publish_tiny: Callable[..., Path], make_lineage) -> dict:
    root = publish_tiny(tmp_path_factory.mktemp("record") / "models")
    make_lineage(root)
    made = make_record(root, engines=("torch",), names=FILES, learned=FILES[:2])
    return json.loads(json.dumps(made, allow_nan=False))


@pytest.mark.slow
def test_the_record_holds_reports_features_a_training_and_imports(record: dict) -> None:
    scores = record["scores"]["torch"]
    assert list(scores["alone"]) == list(FILES)
    assert len(scores["alone"]["short.webm"]["faces"][0]["frames"]) == 6
    assert scores["alone"]["tiny.png"] == {"error": "MediaDimensionsError", "code": "media_dimensions"}
    assert record["learning"]["outcome"]["items"] == 4
    assert set(record["learning"]["candidate"]) == {"cnn", "gate", "lstm", "remembered", "resnext", "vit"}
    assert all(len(held["features"]) == 64 for held in record["learning"]["features"].values())
    assert {"waitress", "flask"} <= set(record["imports"]["web"])
    assert "torch" in record["imports"]["worker"]
    assert record["own_modules"]["learning"]["models"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("who", "packages", "rooms"),
    [
        ("worker", {"scipy", "sklearn", "matplotlib", "flask_swagger_ui"}, {"utils.training", "utils.evaluation"}),
        ("learning", {"sklearn", "matplotlib", "flask_swagger_ui"}, {"utils.training", "utils.evaluation"}),
        ("web", {"torch", "cv2", "PIL", "av", "timm", "onnxruntime", "openvino"}, {"utils.training"}),
    ],
)
def test_each_process_loads_what_it_needs(record: dict, who: str, packages: set[str], rooms: set[str]) -> None:
    assert not packages & set(record["imports"][who])
    assert not rooms & set(record["own_modules"][who])


@pytest.mark.slow
def test_one_digit_is_noticed(record: dict) -> None:
    changed = copy.deepcopy(record)
    frame = changed["scores"]["torch"]["alone"]["short.webm"]["faces"][0]["frames"][3]
    before = frame["probability"]
    frame["probability"] = math.nextafter(before, 1.0)
    (found,) = compare(record, changed)
    assert found.path == "scores/torch/alone/short.webm/faces/0/frames/3/probability"
    assert found.size == frame["probability"] - before
    changed["learning"]["candidate"]["gate"] = "0" * 64
    assert len(compare(record, changed)) == 2


def test_what_leaves_and_what_comes_is_told() -> None:
    old = {"a": 1.5, "gone": [True], "same": None, "own_modules": {"web": {"utils": 3}}}
    new = {"a": 1.5, "new": "x", "same": None, "own_modules": {"web": {"utils": 4}}}
    assert {difference.path for difference in compare(old, new)} == {"gone/0", "new"}
    assert compare(old, new, ["gone", "new"]) == []


def test_a_batch_of_torch_may_round_otherwise() -> None:
    def record(value: float) -> dict:
        return {"scores": {"torch": {"batched": {"a.png": {"p": value}}}}}

    assert compare(record(0.5), record(0.5 + 1e-7)) == []
    assert len(compare(record(0.5), record(0.5 + 1e-4))) == 1


def test_the_files_are_the_same_each_time(tmp_path: Path) -> None:
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        folder.mkdir()
    pairs = [write_files(folder) for folder in folders]
    assert len(pairs[0]) == 37
    assert [p.name for p in pairs[0]] == [p.name for p in pairs[1]]
    assert [a.name for a, b in zip(*pairs, strict=True) if a.read_bytes() != b.read_bytes()] == []
