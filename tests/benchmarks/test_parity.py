"""Parity on labelled data: distances and AUCs are those of the engines, and a miss is a miss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import parity
from benchmarks.parity import Compared, Labelled, compare, table
from models.cards import EXPERT_NAMES
from tests.ensembles import build_ensemble
from utils.detection.torch_engine import TorchEngine
from utils.faces.crops import QUALITY_NAMES

Q = len(QUALITY_NAMES)


def engine_of(seed: int = 3, *, moved: float = 0.0) -> TorchEngine:
    """Tiny networks; `moved` adds to the ViT's every answer."""
    torch.manual_seed(seed)
    ensemble = build_ensemble(quality=Q, tiny=True)
    (bias,) = [p for n, p in ensemble.experts["vit"].named_parameters() if n.endswith("bias") and p.shape == (1,)]
    with torch.no_grad():
        bias += moved
    return TorchEngine(ensemble.eval(), device="cpu", threads=1)


def people(count: int, frames: int) -> list[Labelled]:
    rng = np.random.default_rng(5)
    crops = rng.integers(0, 256, (count, frames, 40, 40, 3), dtype=np.uint8)
    return [Labelled(number % 2, crop, rng.random(Q, dtype=np.float32)) for number, crop in enumerate(crops)]


def test_an_engine_keeps_parity_with_itself():
    engine, group = engine_of(), [*people(4, 1), *people(2, 5)]
    rows = compare(group, engine, engine)
    assert [row.name for row in rows] == [*EXPERT_NAMES, "ensemble"]
    assert [row.people for row in rows] == [6, 6, 6, 2, 6]
    assert all((row.distance, row.auc_distance, row.holds) == (0, 0, True) for row in rows)


def test_the_network_that_moved_is_the_one_that_misses():
    rows = {row.name: row for row in compare(people(6, 1), engine_of(moved=0.5), engine_of())}
    assert not rows["vit"].holds
    assert 0.05 < rows["vit"].distance <= 0.125
    assert rows["cnn"].holds
    assert rows["resnext"].holds
    assert 0 < rows["ensemble"].distance < rows["vit"].distance
    assert "lstm" not in rows, "photos say nothing of it"
    text = table(list(rows.values()))
    assert text.count("misses") == sum(not row.holds for row in rows.values())


@pytest.mark.parametrize(
    ("distance", "auc", "holds"),
    [(0.02, 0.9, True), (0.021, 0.9, False), (0.0, 0.903, False), (0.0, float("nan"), True)],
)
def test_both_tolerances_count(distance, auc, holds):
    assert Compared("vit", "bf16", 10, distance, auc, 0.9).holds is holds


def test_the_command_reads_labelled_files(tiny_root, photo, tmp_path: Path, monkeypatch, capsys):
    for label in ("real", "fake"):
        (tmp_path / label).mkdir()
        for number in range(2):
            lighter = np.clip(photo * (0.8 + 0.1 * number), 0, 255).astype(np.uint8)
            Image.fromarray(lighter[:, :: 1 if label == "real" else -1]).save(tmp_path / label / f"{number}.png")
    monkeypatch.setenv("TELLTALE_WEIGHTS__DIR", str(tiny_root))
    assert parity.main(["--data", str(tmp_path), "--split", "all"]) == 0
    said = capsys.readouterr().out
    assert "torch against torch fp32, 4 faces" in said
    assert said.count("| holds |") == 4
    assert parity.main(["--data", str(tmp_path / "real"), "--split", "all"]) == 3
