"""LayerNorms and head learn, matrices do not move, a stopped training ends with the same bits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from models.gating import Gate
from models.vision_transformer import ViTExpert
from utils.networks import load_ensemble
from utils.training import norms
from utils.training.experts import new_network, smooth_bce
from utils.training.fit import stored_vit
from utils.training.loop import Recipe
from utils.training.norms import NormTuner, rendered, score_views, train_norms, trained_norms
from utils.training.plan import NormsPlan, TrainingPlan
from utils.training.planning import plan_clean
from utils.training.views import View, render
from utils.types import MediaKind
from utils.weights import publish_version

pytestmark = pytest.mark.usefixtures("one_thread")
PLAN = NormsPlan(
    recipe=Recipe(
        epochs=2, batch=4, lr=0.01, average=0.5, patience=9, save_every_s=0.0, floor=1 / 300, decay_vectors=False
    ),
    views=24,
    beside=6,
    calib_per_class=6,
)  # fmt: skip
TINY = TrainingPlan(tiny=True, frames_per_clip=2, h264=0.3, h264_clips=0.5)


@pytest.fixture(scope="module")
def pack(make_pack):
    return make_pack(pictures=32, clips=4, frames=4)


def expert(seed: int = 1) -> ViTExpert:
    made = new_network("vit", tiny=True, seed=seed)
    assert isinstance(made, ViTExpert)
    return made


def state(module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items()}


def test_norms_and_head_move_and_nothing_else(pack, tmp_path):
    vit = expert()
    before = state(vit)
    trained = train_norms(pack, vit, TINY, PLAN, tmp_path)
    moved = {k for k, v in trained.state_dict().items() if not torch.equal(v, before[k])}
    names = trained_norms(trained)
    assert "backbone.blocks.0.norm1.weight" in names
    assert not [n for n in names if "norm" not in n or n.startswith("backbone.norm.")]
    assert moved <= set(names) | {k for k in before if k.startswith("head.")}
    assert {"backbone.norm_pre.weight", "backbone.blocks.3.norm2.bias", "head.score.weight"} <= moved
    assert not trained.training


def test_what_is_stored_and_averaged_is_what_learns():
    vit = expert()
    held = NormTuner(vit).state_dict()
    learning = sum(p.numel() for p in vit.parameters() if p.requires_grad)
    assert sum(v.numel() for v in held.values()) == learning
    assert learning < sum(p.numel() for p in vit.parameters())


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_stopped_training_ends_with_the_same_bits(pack, tmp_path, monkeypatch, dropout):
    plan = dataclasses.replace(PLAN, patch_dropout=dropout)
    whole = state(train_norms(pack, expert(), TINY, plan, tmp_path / "whole"))
    real, left = smooth_bce, [5]

    def cut(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise InterruptedError("power cut")
        return real(*arguments)

    monkeypatch.setattr(norms, "smooth_bce", cut)
    with pytest.raises(InterruptedError):
        train_norms(pack, expert(), TINY, plan, tmp_path / "parts")
    monkeypatch.setattr(norms, "smooth_bce", real)
    resumed = state(train_norms(pack, expert(), TINY, plan, tmp_path / "parts"))
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_early_blocks_can_be_left_alone(pack, tmp_path):
    vit = expert()
    before = state(vit)
    trained = train_norms(pack, vit, TINY, dataclasses.replace(PLAN, first_block=2), tmp_path)
    moved = {k for k, v in trained.state_dict().items() if not torch.equal(v, before[k]) and "backbone" in k}
    assert moved
    assert all(k.startswith(("backbone.blocks.2.", "backbone.blocks.3.")) for k in moved)


def test_patches_are_dropped_in_training_only():
    vit = expert()
    tuner = NormTuner(vit, 0.5)
    images = torch.rand(2, 3, 32, 32)
    seen = []
    vit.backbone.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    tuner.train()(images)
    tuner.eval()(images)
    assert seen == [1 + 8, 1 + 16]


def test_attention_is_spelt_out_on_a_cpu_for_as_long_as_it_trains():
    vit, images = expert().eval(), torch.rand(2, 3, 32, 32)
    layers = [block.attn for block in vit.backbone.blocks]
    before = vit(images).logit
    with norms.explicit_attention(vit, on=True):
        assert not any(layer.fused_attn for layer in layers)
        assert torch.allclose(vit(images).logit, before, atol=1e-5)
    with norms.explicit_attention(vit, on=False):
        assert all(layer.fused_attn for layer in layers)
    with pytest.raises(InterruptedError), norms.explicit_attention(vit, on=True):
        raise InterruptedError("power cut")
    assert all(layer.fused_attn for layer in layers)


def test_training_uses_it(pack, tmp_path, monkeypatch):
    vit, seen = expert(), []
    real = smooth_bce

    def watched(*arguments):
        seen.append([block.attn.fused_attn for block in vit.backbone.blocks])
        return real(*arguments)

    monkeypatch.setattr(norms, "smooth_bce", watched)
    train_norms(pack, vit, TINY, PLAN, tmp_path)
    assert seen
    assert not any(fused for step in seen for fused in step)
    assert all(block.attn.fused_attn for block in vit.backbone.blocks)


def test_it_learns_what_there_is_to_learn(pack, tmp_path):
    recipe = dataclasses.replace(PLAN.recipe, epochs=10, lr=0.02)
    trained = train_norms(pack, expert(), TINY, dataclasses.replace(PLAN, recipe=recipe), tmp_path)
    views = plan_clean(pack.select("train", MediaKind.IMAGE), per_class=8, seed=7)
    logits = score_views(trained, pack, views, tiny=True)
    labels = np.array([v.label for v in views])
    assert logits[labels == 1].mean() > logits[labels == 0].mean()


def test_batches_are_rendered_in_order_and_errors_come_through(pack):
    parts = [[View(i, 0, "s", "-", i), View(i + 1, 0, "s", "-", 9 + i)] for i in range(5)]
    for (part, pixels), wanted in zip(rendered(pack, parts, workers=3), parts, strict=True):
        assert part == wanted
        assert np.array_equal(pixels, np.stack([render(pack, v) for v in part]))
    with pytest.raises(IndexError):
        list(rendered(pack, [[View(10**6, 0, "s", "-", 1)]]))


@pytest.mark.parametrize("wrong", [{"patch_dropout": 1.0}, {"patch_dropout": -0.1}, {"first_block": -1}])
def test_senseless_plans_are_refused(wrong):
    with pytest.raises(ValueError, match="patch_dropout"):
        NormsPlan(**wrong)


def test_a_version_keeps_norms_beside_the_head_and_serves_them(base_folder, tmp_path):
    vit = new_network("vit", tiny=False, seed=1)
    stored = stored_vit(vit, TrainingPlan(norms=NormsPlan()))
    assert not [n for n in stored if not n.startswith("head.") and "norm" not in n]
    assert {n for n in stored_vit(vit, TrainingPlan()) if not n.startswith("head.")} == set()
    stored["backbone.blocks.7.norm1.bias"] = np.full(768, 0.125, np.float32)
    (tmp_path / "base").symlink_to(base_folder)
    gate = {k: v.numpy() for k, v in Gate(experts=4, quality=4).state_dict().items()}
    documents = {"card": {"name": "n"}, "calibration": {}}
    version = publish_version(tmp_path, "n", {"vit": stored, "gate": gate}, documents)
    ensemble, _ = load_ensemble(tmp_path, version)
    served = ensemble.experts["vit"].backbone.blocks
    assert (served[7].norm1.bias == 0.125).all()
    assert not (served[6].norm1.bias == 0.125).any()
