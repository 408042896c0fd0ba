"""Which views are stored under which name: rounds, what training draws itself, what the ViT's head sees."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from utils.training import stores
from utils.training.crop_set import Portrait
from utils.training.features import FeatureStore
from utils.training.plan import TrainingPlan
from utils.training.views import plan_views
from utils.types import Box, MediaKind


def tokens_of(batch):
    return np.zeros((len(batch), 1, 2), np.float16)


def test_head_sees_a_share_of_the_self_blends_and_everything_else(make_pack, tmp_path):
    pack = make_pack(pictures=48)
    views = plan_views(pack.select("train", MediaKind.IMAGE), per_class=99, blends=99, seed=1)
    store = FeatureStore(tmp_path, views)
    store.extract(pack, tokens_of)
    kept = {
        share: stores.head_views({"train": store}, TrainingPlan(head_blends=share)).views for share in (0.0, 0.4, 1.0)
    }
    assert kept[1.0] == store.views
    assert kept[0.0] == tuple(view for view in views if not view.blended)
    some = sum(view.blended for view in kept[0.4])
    assert 0 < some < sum(view.blended for view in views)
    assert len(kept[0.4]) == len(kept[0.0]) + some


@pytest.mark.parametrize(("rounds", "clip_rounds", "names"), [
    (1, 0, {"train", "train_video"}),
    (2, 0, {"train", "train_2", "train_video", "train_video_2"}),
    (1, 3, {"train", "train_video", "train_video_2", "train_video_3"}),
    (2, 1, {"train", "train_2", "train_video"}),
])  # fmt: skip
def test_frames_of_clips_can_be_gone_through_more_often_than_pictures(
    make_pack, tmp_path, monkeypatch, rounds, clip_rounds, names
):
    monkeypatch.setattr(stores, "TorchFeaturizer", lambda *_, **__: tokens_of)
    monkeypatch.setattr(stores, "quick_featurizer", lambda *_, **__: tokens_of)
    pack = make_pack(pictures=24, clips=8)
    plan = TrainingPlan(per_class=4, blends=2, rounds=rounds, clip_rounds=clip_rounds, frames_per_clip=2, swapped=0)
    found = stores.make_stores(pack, tmp_path, plan, None, device="cpu")
    assert {name for name in found if name.startswith("train")} == names
    assert len({found[name].views for name in names}) == len(names), "other views each time"


def test_portraits_and_swaps_are_stores_of_training_crops_alone(make_pack, tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "TorchFeaturizer", lambda *_, **__: tokens_of)
    monkeypatch.setattr(stores, "quick_featurizer", lambda *_, **__: tokens_of)
    pack = make_pack(pictures=32, clips=8)
    marks = np.array([[90, 110], [165, 110], [128, 150], [98, 185], [158, 185]], np.float32)
    nobody = Portrait(np.full((256, 256, 3), 99, np.uint8), marks, Box(30, 20, 226, 216))
    real = [row for row in pack.rows if not row.label and row.split == "train"]
    pack = dataclasses.replace(pack, portraits={row.row: nobody for row in real if row.kind == MediaKind.IMAGE.value})
    plan = TrainingPlan(per_class=4, blends=2, frames_per_clip=2, swapped=3)
    found = stores.make_stores(pack, tmp_path, plan, None, device="cpu")
    for name in ("train_portraits", "train_swapped"):
        rows = {n for view in found[name].views for n in (view.row, view.donor) if n >= 0}
        assert rows
        assert {(pack.rows[n].split, pack.rows[n].label) for n in rows} == {("train", 0)}
    without = dataclasses.replace(plan, leave_out=("swaps",))
    found = stores.make_stores(pack, tmp_path / "without", without, None, device="cpu")
    kinds = {view.redrawn for name in ("train_portraits", "train_swapped") for view in found[name].views}
    assert kinds == {"", "portrait"}, "a family is left out with those of it that training makes"
