"""What the experts' trainings share: losses, scores per source, parameters from a seed; and that they learn."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.cnn_model import build_cnn
from models.ensemble_model import BUILDERS
from models.vision_transformer import build_vit
from utils.metrics import auc
from utils.training.experts import (
    HeadAxes,
    mean_source_auc,
    new_network,
    smooth_bce,
    token_directions,
    train_lstm,
    train_student,
    train_vit_head,
)
from utils.training.features import FeatureStore
from utils.training.loop import Recipe
from utils.training.planning import plan_balanced, plan_clean
from utils.training.views import View
from utils.types import MediaKind


def test_loss_is_least_at_the_smoothed_label():
    logits = torch.linspace(-6, 6, 241)
    losses = torch.stack([smooth_bce(z[None], torch.ones(1)) for z in logits])
    assert float(logits[losses.argmin()].sigmoid()) == pytest.approx(0.95, abs=0.005)


def test_auc_is_a_mean_over_sources_that_have_both_labels():
    views = [View(0, label, source, "-", 0) for source, label in
             [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("c", 1)]]  # fmt: skip
    assert mean_source_auc(views, np.array([0.0, 1.0, 9.0, 8.0, 5.0])) == 0.5
    assert mean_source_auc(views[:2], np.array([0.0, 1.0])) == 1.0


def test_parameters_follow_from_the_seed_alone_and_leave_other_draws_alone():
    torch.manual_seed(1)
    before = torch.rand(3)
    torch.manual_seed(1)
    one = new_network(build_cnn, tiny=True, seed=4)
    assert torch.equal(torch.rand(3), before)
    two, other = new_network(build_cnn, tiny=True, seed=4), new_network(build_cnn, tiny=True, seed=5)
    first = [next(iter(net.parameters())) for net in (one, two, other)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])


def test_lstm_learns_sequences_that_flicker(tmp_path):
    rng = np.random.default_rng(0)
    labels = (np.arange(64) % 2).astype(np.float32)
    data = rng.normal(0, 0.5, (64, 8, 64)).astype(np.float32)
    data[..., :16] += 2.0 * labels[:, None, None] * np.where(np.arange(8) % 2, 1, -1)[:, None]
    recipe = Recipe(epochs=8, batch=8, lr=0.02, average=0.5, patience=8)
    model = train_lstm(data[:48], labels[:48], data[48:], labels[48:], recipe, tmp_path, tiny=True)
    with torch.inference_mode():
        logits = model(torch.from_numpy(data[48:])).logit.numpy()
    assert logits[labels[48:] == 1].mean() > logits[labels[48:] == 0].mean() + 0.5


def stored_views(make_pack, folder):
    """Stores for training and calibration; the tokens are mean colours."""
    pack = make_pack(pictures=24)

    def colours(batch):
        means = batch.reshape(len(batch), -1, 3).mean(1).astype(np.float16)
        return np.repeat(means[:, None], 2, axis=2)  # one layer of 6

    stores = []
    rows = {split: pack.select(split, MediaKind.IMAGE) for split in ("train", "calib")}
    views = {
        "train": [replace(view, processed=False) for view in plan_balanced(rows["train"], 18, seed=2)],
        "calib": plan_clean(rows["calib"], per_class=9, seed=2),
    }
    for split, of_split in views.items():
        stores.append(FeatureStore(folder / split, of_split))
        stores[-1].extract(pack, colours)
    return stores


@pytest.mark.parametrize("name", ["cnn", "resnext"])
def test_students_learn_from_stored_views_and_are_kept_in_their_folder(make_pack, tmp_path, name):
    stores = stored_views(make_pack, tmp_path)
    recipe = Recipe(epochs=12, batch=4, lr=0.01, average=0.5, patience=12)
    model = train_student(name, *stores, recipe, tmp_path / "student", tiny=True)
    assert not model.training
    assert all(torch.isfinite(p).all() for p in model.parameters())
    lines = [json.loads(line) for line in (tmp_path / "student" / "metrics.jsonl").read_text().splitlines()]
    assert min(line["loss"] for line in lines[6:]) < lines[0]["loss"]


@pytest.mark.parametrize("name", ["cnn", "resnext"])
def test_student_goes_on_from_given_weights(make_pack, tmp_path, name):
    stores = stored_views(make_pack, tmp_path)
    recipe = Recipe(epochs=1, batch=4, lr=1e-9, warmup=0.5, average=0.0, weight_decay=0.0)
    start = {k: v.numpy() for k, v in new_network(BUILDERS[name], tiny=True, seed=5).state_dict().items()}
    begun = train_student(name, *stores, recipe, tmp_path / "begun", tiny=True, start=start)
    fresh = train_student(name, *stores, recipe, tmp_path / "fresh", tiny=True)
    for key, value in begun.named_parameters():
        assert torch.allclose(value, torch.from_numpy(start[key]), atol=1e-6), key
    assert any(not torch.allclose(v, torch.from_numpy(start[k]), atol=1e-6) for k, v in fresh.named_parameters())


def test_directions_keep_apart_what_any_layer_tells_apart():
    rng = np.random.default_rng(2)
    tokens = rng.normal(0, 1, (60, 3, 20)).astype(np.float32) * np.array([100.0, 1.0, 0.01])[:, None]
    tokens[:30, 2, :10] += 0.1  # two kinds, which only the layer with the smallest numbers knows
    directions = token_directions(tokens.astype(np.float16) + np.float16(5), most=16)
    assert directions.shape == (60, 16)
    assert np.allclose(np.linalg.norm(directions, axis=1), 1, atol=1e-4)
    alike = directions @ directions.T
    same = (np.arange(60) < 30)[:, None] == (np.arange(60) < 30)
    assert alike[same & ~np.eye(60, dtype=bool)].mean() > alike[~same].mean() + 0.1


def test_loss_weights_count_items_as_often_as_they_say():
    logits, labels = torch.tensor([1.0, -2.0]), torch.tensor([1.0, 1.0])
    doubled = smooth_bce(torch.cat([logits, logits[:1]]), torch.ones(3))
    assert float(smooth_bce(logits, labels, torch.tensor([2.0, 1.0])) * 2 / 3) == pytest.approx(float(doubled))


class HeldTokens:
    """Tapped tokens in memory, and the labels of their views; three dimensions of a layer are far from the others."""

    def __init__(self, count: int, seed: int, *, told_by: int = 7) -> None:
        rng = np.random.default_rng(seed)
        self.views = tuple(View(i, i % 2, "s", "gan" if i % 2 else "-", i) for i in range(count))
        tokens = rng.normal(0, 1, (count, 4, 48))
        tokens[:, :, :3] = tokens[:, :, :3] * 40 + 300
        tokens[:, :, told_by] += 1.5 * (2 * self.labels()[:, None] - 1)
        self.tokens = tokens.astype(np.float16)

    def load(self, name: str) -> np.ndarray:
        assert name == "tokens"
        return self.tokens

    def take(self, name: str, rows: np.ndarray) -> np.ndarray:
        return self.load(name)[rows]

    def labels(self) -> np.ndarray:
        return np.array([view.label for view in self.views], np.float32)


def head_scores(expert, store) -> np.ndarray:
    with torch.inference_mode():
        return expert.head(torch.from_numpy(store.tokens.astype(np.float32))).logit.double().numpy()


def test_a_head_answers_on_tokens_as_it_does_in_its_coordinates():
    store, expert = HeldTokens(200, 1), new_network(build_vit, tiny=True, seed=3).eval()
    with torch.no_grad():
        for norm in expert.head.norms:
            norm.weight.uniform_(0.5, 2), norm.bias.normal_()
    axes, before = HeadAxes.fitted(store.tokens), head_scores(expert, store)
    seen = axes.of(store.tokens)
    learned = axes.read(expert.head).eval()
    with torch.inference_mode():
        np.testing.assert_allclose(learned(seen).logit.numpy(), before, atol=1e-3)
    values = seen.flatten(0, 1).std(0)
    assert float(values.max() / values.median()) < 4, "no direction is many times as large as the others"
    axes.write(learned, expert.head)
    np.testing.assert_allclose(head_scores(expert, store), before, atol=1e-3)
    few = HeadAxes.fitted(store.tokens, most=4)
    other = few.read(expert.head).eval()
    few.write(other, expert.head)
    with torch.inference_mode():
        np.testing.assert_allclose(head_scores(expert, store), other(few.of(store.tokens)).logit.numpy(), atol=1e-3)


def test_the_head_of_the_vit_learns_from_its_tokens_and_goes_on_from_what_it_was(tmp_path):
    train, calib, val = (HeldTokens(count, seed) for seed, count in enumerate((400, 80, 200)))
    recipe = Recipe(epochs=8, batch=16, lr=0.01, average=0.5, patience=8)
    learned = train_vit_head(train, calib, recipe, tmp_path / "one", expert=new_network(build_vit, tiny=True, seed=0))
    assert auc(val.labels().astype(np.float64), head_scores(learned, val)) > 0.95
    assert not learned.head.training
    before = head_scores(learned, val)
    still = Recipe(epochs=1, batch=16, lr=1e-9, warmup=0.5, average=0.0, weight_decay=0.0)
    np.testing.assert_allclose(
        head_scores(train_vit_head(train, calib, still, tmp_path / "two", expert=learned), val), before, atol=1e-2
    )
