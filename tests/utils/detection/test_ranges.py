"""Ranges of activations are measured on the faces of pictures, and conversion takes them for int8."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utils.config import Settings
from utils.detection import ranges
from utils.detection.conversion import to_graph
from utils.detection.quantisation import layers_with_weights, quantise, ranges_file, read_ranges
from utils.errors import TrainingDataError
from utils.faces.detector import CenterFaceDetector
from utils.types import Pixels
from utils.weights import load_ensemble, verify_current


@pytest.fixture
def pictures(photo: Pixels, tmp_path: Path) -> Path:
    """Three pictures of a face in changing light, one of none, one that is damaged, and a file of another kind."""
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    for number in range(3):
        lit = np.clip(photo * (0.6 + 0.2 * number), 0, 255).astype(np.uint8)
        Image.fromarray(lit).save(folder / ("deeper" if number else ".") / f"{number}.png")
    Image.fromarray(np.full((200, 200, 3), 90, np.uint8)).save(folder / "wall.png")
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (folder / "notes.txt").write_text("nothing")
    return folder


def test_crops_are_of_faces_and_the_same_at_each_call(pictures: Path, face_detector: CenterFaceDetector) -> None:
    crops = ranges.collect_crops(pictures, 9, face_detector)
    assert (crops.shape, crops.dtype) == ((3, 224, 224, 3), np.uint8)
    assert np.array_equal(crops, ranges.collect_crops(pictures, 9, face_detector))
    assert sorted(float(c.mean()) for c in crops)[0] < 0.8 * max(float(c.mean()) for c in crops)
    assert np.array_equal(ranges.collect_crops(pictures, 2, face_detector), crops[:2])


def test_pictures_without_faces_are_refused(tmp_path: Path, face_detector: CenterFaceDetector) -> None:
    Image.fromarray(np.full((200, 200, 3), 90, np.uint8)).save(tmp_path / "wall.png")
    with pytest.raises(TrainingDataError, match="No face was found"):
        ranges.collect_crops(tmp_path, 4, face_detector)


def test_the_command_writes_what_conversion_reads(
    pictures: Path, own_root: Path, settings_for: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TELLTALE_WEIGHTS__DIR", str(own_root))
    version = verify_current(settings_for(own_root))
    assert ranges.main([str(pictures), "--crops", "3"]) == 0
    found = read_ranges(ranges_file(own_root, version))
    assert set(found) == set(ranges.QUANTISED)
    ensemble, _ = load_ensemble(own_root, version, ranges.QUANTISED)
    graph = to_graph("resnext", ensemble.experts["resnext"], tiny=True)
    assert len(found["resnext"]) == len(layers_with_weights(graph))
    assert all(layer.low <= layer.high for layer in found["resnext"])
    assert any(layer.low < layer.high for layer in found["resnext"])
    assert quantise(graph, found["resnext"])
    assert any(op.get_type_name() == "FakeQuantize" for op in graph.get_ordered_ops())


def test_what_cannot_be_measured_is_said(
    tmp_path: Path, own_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TELLTALE_WEIGHTS__DIR", str(own_root))
    assert ranges.main([str(tmp_path / "empty")]) == 1
    assert "No face was found" in capsys.readouterr().err
    assert not (own_root / "quantisation").exists()
