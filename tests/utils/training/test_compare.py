"""Peers are compared on the same items; the gate is refitted without what it is measured on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.mesonet import MesoNet4
from models.registry import EXPERT_NAMES
from utils.evaluation.scorecard import pseudonym, write_scores
from utils.evaluation.scores import ScoreTable
from utils.feedback.feature_set import FeatureSet, save_features
from utils.feedback.golden import GOLDEN_FILE, LEARNING_FOLDER
from utils.feedback.replay import REPLAY_FILE
from utils.training import compare as module
from utils.training.compare import (
    BEGIN,
    END,
    GATE,
    MEAN,
    MESONET,
    compare,
    main,
    mesonet_scores,
    out_of_domain,
    replace_part,
)
from utils.training.gate_fit import fit_gate
from utils.training.loop import Recipe
from utils.training.mesonet import SIDE, train_mesonet
from utils.weights import publish_version, set_current

pytestmark = pytest.mark.usefixtures("one_thread")


def features(seed: int, sources: tuple[str, ...] = ("one", "two", "video:x"), per_label: int = 24) -> FeatureSet:
    """Cached logits in which the ViT is good, the CNN worthless and the others fair."""
    rng = np.random.default_rng(seed)
    labels = np.tile([0.0, 1.0], per_label * len(sources)).astype(np.float32)
    of = np.repeat(np.array(sources), 2 * per_label)
    strength = np.array([0.0, 0.5, 2.5, 0.5])
    logits = (2 * labels[:, None] - 1) * strength + rng.normal(0, 1.5, (len(labels), 4))
    logits[np.array([not s.startswith("video") for s in of]), 3] = np.nan
    count = len(labels)
    return FeatureSet(
        tokens=np.zeros((count, 1, 2), np.float16), starts=np.arange(count + 1), logits=logits.astype(np.float32),
        quality=rng.normal(0, 1, (count, 4)).astype(np.float32), labels=labels, sources=tuple(of),
        generators=tuple("gan" if label else "-" for label in labels),
        groups=tuple(f"{seed}-{i // 2}" for i in range(count)),
        keys=tuple(f"{seed}-{i}" for i in range(count)),
    )  # fmt: skip


def test_gain_is_paired_and_zero_for_the_gate_itself():
    rng = np.random.default_rng(0)
    labels = np.tile([0.0, 1.0], 60)
    good = labels + rng.normal(0, 0.4, 120)
    groups = [str(i // 2) for i in range(120)]
    half = np.where(np.arange(120) < 60, good, np.nan)
    found = {c.peer: c for c in compare(labels, {"bad": -good, "half": half, GATE: good}, groups, rounds=60)}
    assert found[GATE].gain.low == found[GATE].gain.high == 0
    assert found["bad"].gain.value == pytest.approx(2 * found[GATE].auc.value - 1)
    assert found["half"].gain.value == 0, "on the items that both judge"


def test_refitted_gate_never_sees_the_source_that_it_is_measured_on(monkeypatch):
    seen: list[set[str]] = []

    def watched(table: ScoreTable):
        seen.append(set(table.sources))
        return fit_gate(table)

    monkeypatch.setattr(module, "fit_gate", watched)
    found = out_of_domain(features(1), features(2), rounds=20)
    assert seen == [{"one", "two"}, {"clips", "two"}, {"clips", "one"}]
    assert set(found) == {"clips", "one", "two", "all, each left out"}
    peers = {c.peer: c for c in found["one"]}
    assert peers["CNN"].gain.low > 0
    assert "BiLSTM" not in peers
    assert {MEAN, GATE, "ViT-B/16"} <= set(peers)


def test_part_of_the_page_is_replaced_and_the_rest_stays():
    page = f"before\n\n{BEGIN}\nold\n{END}\nafter\n"
    assert replace_part(page, f"{BEGIN}\nnew\n{END}") == f"before\n\n{BEGIN}\nnew\n{END}\nafter\n"
    appended = replace_part("only\n", f"{BEGIN}\nnew\n{END}")
    assert appended.startswith("only\n")
    assert appended.count(BEGIN) == 1


def test_command_writes_the_part(tmp_path, monkeypatch):
    root = tmp_path / "weights"
    held = features(3, ("one", "two"))
    table = ScoreTable(
        held.keys, ("image",) * len(held), held.labels.astype(float), held.sources, held.generators, held.groups,
        held.logits.astype(float), held.quality.astype(float),
    )  # fmt: skip
    gate = fit_gate(table).gate
    write_scores(tmp_path / "scores.csv", table, gate)
    tensors = {"gate": {k: v.detach().numpy() for k, v in gate.state_dict().items()}}
    documents = {"calibration": {}, "card": {"name": "v9"}}
    publish_version(root, "v9", tensors, documents, {"scores.csv": tmp_path / "scores.csv"})
    set_current(root, "v9")
    folder = root / LEARNING_FOLDER / "v9"
    folder.mkdir(parents=True)
    save_features(folder / REPLAY_FILE, features(4), {})
    save_features(folder / GOLDEN_FILE, features(5), {})
    monkeypatch.setenv("TELLTALE_WEIGHTS__DIR", str(root))
    page = tmp_path / "accuracy.md"
    page.write_text("# What was tried\n")
    assert main(["--out", str(page), "--rounds", "20"]) == 0
    text = page.read_text()
    assert text.startswith("# What was tried\n")
    assert f"| one | {MEAN} |" in text
    assert MESONET not in text.split("out of domain")[0].replace("MesoNet-4, where", "")
    assert "nan" not in text
    assert main(["--version", "v0", "--out", str(page)]) == 3


def test_mesonet_is_the_network_of_the_paper():
    model = MesoNet4(side=256)
    assert sum(p.numel() for p in model.parameters()) == 27_977  # 28,073 with the paper's second output
    assert model.eval()(torch.zeros(2, 3, 256, 256)).shape == (2,)
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [(c.out_channels, c.kernel_size[0]) for c in convolutions] == [(8, 3), (8, 5), (16, 5), (16, 5)]


def test_mesonet_learns_from_the_pack_and_scores_its_validation(make_pack, tmp_path):
    pack = make_pack(pictures=48)
    recipe = Recipe(epochs=4, batch=8, lr=3e-3, average=0.5, patience=9)
    model = train_mesonet(pack, tmp_path / "m", per_class=16, calib_per_class=6, recipe=recipe)
    assert next(model.parameters()).isfinite().all()
    assert (tmp_path / "m" / "metrics.jsonl").read_text().count("\n") == 4
    assert SIDE % 32 == 0
    assert len(EXPERT_NAMES) == 4


def test_mesonet_scores_go_by_the_names_of_score_files(make_pack, tmp_path, monkeypatch):
    pack = make_pack(pictures=16)
    monkeypatch.setattr(module, "train_mesonet", lambda *a, **k: MesoNet4(side=SIDE).eval())
    scores = mesonet_scores(pack, tmp_path, per_class=4)
    assert set(scores) == {pseudonym(r.file) for r in pack.rows if r.split == "val"}
    assert np.isfinite(list(scores.values())).all()
