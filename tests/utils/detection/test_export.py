"""The exported graphs, run by ONNX Runtime, answer as torch does."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import inference
from models.cards import EXPERT_NAMES
from models.ensemble_model import Ensemble
from models.gating import Gate
from utils.config import Settings
from utils.detection.export import SUMS, export_version
from utils.faces.crops import QUALITY_NAMES
from utils.files import file_sha256
from utils.networks import load_ensemble
from utils.tensors import load_into, read_tensors
from utils.weights import GATE_FILE, verify_version


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_root: Path, settings_for: Callable[..., Settings]) -> Path:
    target = tmp_path_factory.mktemp("export") / "onnx"
    export_version(settings_for(tiny_root), target)
    return target


@pytest.fixture(scope="module")
def ensemble(tiny_root: Path) -> Ensemble:
    return load_ensemble(tiny_root, verify_version(tiny_root, "tiny"))[0]


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", EXPERT_NAMES)
@pytest.mark.parametrize("batch", [1, 5])
def test_experts_answer_as_torch_does(folder, ensemble, name, batch):
    torch.manual_seed(batch)
    given = torch.rand(batch, 9, 64) if name == "lstm" else torch.rand(batch, 3, 32, 32)
    logit, feature = session(folder / f"{name}.onnx").run(["logit", "feature"], {"input": given.numpy()})
    with torch.inference_mode():
        wanted = ensemble.experts[name](given)
    assert np.allclose(logit, wanted.logit.numpy(), atol=1e-4)
    assert np.allclose(feature, wanted.feature.numpy(), atol=1e-4)


def test_gate_answers_as_torch_does_whoever_is_missing(folder, tiny_root):
    gate = Gate(experts=len(EXPERT_NAMES), quality=len(QUALITY_NAMES))
    load_into(gate, read_tensors(tiny_root / "tiny" / GATE_FILE), what="the gate")
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 1, (7, len(EXPERT_NAMES))).astype(np.float32)
    logits[:5, 3] = logits[2, 1] = np.nan
    quality = rng.random((7, len(QUALITY_NAMES)), dtype=np.float32)
    found = session(folder / "gate.onnx").run(
        ["logit", "weights", "calibrated"], {"logits": logits, "quality": quality}
    )
    with torch.inference_mode():
        wanted = gate(torch.from_numpy(logits), torch.from_numpy(quality))
    for value, name in zip(found, ("logit", "weights", "calibrated"), strict=True):
        assert np.allclose(value, getattr(wanted, name).numpy(), rtol=1e-4, atol=1e-4, equal_nan=True), name


def test_folder_is_whole_and_says_what_it_is(folder):
    listed = dict(reversed(line.split("  ")) for line in (folder / SUMS).read_text().splitlines())
    assert {path.name for path in folder.iterdir()} == {*listed, SUMS}
    assert all(file_sha256(folder / name) == sha256 for name, sha256 in listed.items())
    assert {"calibration.json", "cards.json", "gate.onnx", "README.md"} < set(listed)
    readme = (folder / "README.md").read_text()
    assert all(f"`{name}.onnx`" in readme for name in (*EXPERT_NAMES, "gate"))
    assert json.loads((folder / "cards.json").read_text())["vit"]["input_size"] == 32
    checked = subprocess.run(["sha256sum", "-c", "--quiet", SUMS], cwd=folder, check=False, capture_output=True)
    assert checked.returncode == 0


def test_command_line_exports_once(tmp_path, tiny_root, monkeypatch, capsys):
    monkeypatch.setenv("TELLTALE_WEIGHTS__DIR", str(tiny_root))
    assert inference.main(["--export", str(tmp_path / "onnx")]) == 0
    assert "README.md" in capsys.readouterr().out
    assert inference.main(["--export", str(tmp_path / "onnx")]) == inference.EXIT_UNUSABLE
    assert "exists" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        inference.main(["--export", str(tmp_path / "other"), "photo.jpg"])
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]
