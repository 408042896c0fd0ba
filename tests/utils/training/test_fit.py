"""What is made ready for training: which self-blends the head sees, where redrawn crops come in."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from utils.errors import TrainingDataError, WeightsError
from utils.evaluation.datasets import Sample
from utils.training import fit
from utils.training.crop_set import Portrait
from utils.training.features import FeatureStore
from utils.training.plan import TrainingPlan
from utils.training.views import plan_views
from utils.types import Box, Face, MediaKind


def tokens_of(batch):
    return np.zeros((len(batch), 1, 2), np.float16)


def test_head_sees_a_share_of_the_self_blends_and_everything_else(make_pack, tmp_path):
    pack = make_pack(pictures=48)
    views = plan_views(pack.select("train", MediaKind.IMAGE), per_class=99, blends=99, seed=1)
    store = FeatureStore(tmp_path, views)
    store.extract(pack, tokens_of)
    kept = {share: fit.head_views({"train": store}, TrainingPlan(head_blends=share)).views for share in (0.0, 0.4, 1.0)}
    assert kept[1.0] == store.views
    assert kept[0.0] == tuple(view for view in views if not view.blended)
    some = sum(view.blended for view in kept[0.4])
    assert 0 < some < sum(view.blended for view in views)
    assert len(kept[0.4]) == len(kept[0.0]) + some


def test_redrawn_crops_are_made_of_training_crops_only(make_pack, tmp_path, monkeypatch):
    pack = make_pack(pictures=24, clips=8)

    class Same:
        def to(self, device):
            return self

    monkeypatch.setattr(fit, "fetched_redrawer", lambda folder: Same())
    monkeypatch.setattr("utils.training.super_resolution.redraw", lambda net, pixels, side, device: pixels)
    plan = TrainingPlan(redrawn=4, frames_per_clip=2)
    drawn = fit.with_redrawn(pack, plan, tmp_path, tmp_path, device="cpu", tell=print)
    assert {(pack.rows[n].split, pack.rows[n].label) for n in drawn.redrawn} == {("train", 0)}
    assert {pack.rows[n].kind for n in drawn.redrawn} == {"image", "video"}
    none = dataclasses.replace(plan, redrawn=0)
    assert fit.with_redrawn(pack, none, tmp_path, tmp_path, device="cpu", tell=print) is pack


def test_portraits_stand_beside_training_crops_only(make_pack, tmp_path, monkeypatch):
    pack = make_pack(pictures=24, clips=8)
    face = Face(Box(100, 80, 420, 460), 0.9, np.array([[180, 220], [330, 220], [256, 300], [196, 370], [316, 370]]))

    class Grey:
        def draw(self, rng):
            return np.full((512, 512, 3), 128, np.uint8)

        def detect(self, rgb):
            return (face,)

    monkeypatch.setattr(fit, "fetched_portraitist", lambda folder: Grey())
    plan = TrainingPlan(portraits=4, frames_per_clip=2)
    drawn = fit.with_portraits(pack, plan, tmp_path, tmp_path, Grey(), tell=print)
    assert {(pack.rows[n].split, pack.rows[n].label) for n in drawn.portraits} == {("train", 0)}
    assert {pack.rows[n].kind for n in drawn.portraits} == {"image", "video"}
    none = dataclasses.replace(plan, portraits=0)
    assert fit.with_portraits(pack, none, tmp_path, tmp_path, Grey(), tell=print) is pack


@pytest.mark.parametrize(("rounds", "clip_rounds", "names"), [
    (1, 0, {"train", "train_video"}),
    (2, 0, {"train", "train_2", "train_video", "train_video_2"}),
    (1, 3, {"train", "train_video", "train_video_2", "train_video_3"}),
    (2, 1, {"train", "train_2", "train_video"}),
])  # fmt: skip
def test_frames_of_clips_can_be_gone_through_more_often_than_pictures(
    make_pack, tmp_path, monkeypatch, rounds, clip_rounds, names
):
    monkeypatch.setattr(fit, "TorchFeaturizer", lambda *_, **__: tokens_of)
    pack = make_pack(pictures=24, clips=8)
    plan = TrainingPlan(per_class=4, blends=2, rounds=rounds, clip_rounds=clip_rounds, frames_per_clip=2, swapped=0)
    stores = fit.make_stores(pack, tmp_path, plan, None, device="cpu", tell=lambda line: None)
    assert {name for name in stores if name.startswith("train")} == names
    assert len({stores[name].views for name in names}) == len(names), "other views each time"


def test_portraits_and_swaps_are_stores_of_training_crops_alone(make_pack, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "TorchFeaturizer", lambda *_, **__: tokens_of)
    pack = make_pack(pictures=32, clips=8)
    marks = np.array([[90, 110], [165, 110], [128, 150], [98, 185], [158, 185]], np.float32)
    nobody = Portrait(np.full((256, 256, 3), 99, np.uint8), marks, Box(30, 20, 226, 216))
    real = [row for row in pack.rows if not row.label and row.split == "train"]
    pack = dataclasses.replace(pack, portraits={row.row: nobody for row in real if row.kind == MediaKind.IMAGE.value})
    plan = TrainingPlan(per_class=4, blends=2, frames_per_clip=2, swapped=3)
    stores = fit.make_stores(pack, tmp_path, plan, None, device="cpu", tell=lambda line: None)
    for name in ("train_portraits", "train_swapped"):
        rows = {n for view in stores[name].views for n in (view.row, view.donor) if n >= 0}
        assert rows
        assert {(pack.rows[n].split, pack.rows[n].label) for n in rows} == {("train", 0)}
    without = dataclasses.replace(plan, leave_out=("swaps",))
    stores = fit.make_stores(pack, tmp_path / "without", without, None, device="cpu", tell=lambda line: None)
    kinds = {view.redrawn for name in ("train_portraits", "train_swapped") for view in stores[name].views}
    assert kinds == {"", "portrait"}, "a family is left out with those of it that training makes"


def test_a_start_is_refused_before_any_work_where_it_may_have_seen_what_is_left_out(tmp_path):
    with pytest.raises(WeightsError):
        fit.require_start(tmp_path, TrainingPlan(start="v9"))
    with pytest.raises(TrainingDataError, match="v9 may have seen dfdc"):
        fit.require_start(tmp_path, TrainingPlan(start="v9", leave_out=("dfdc",)))
    fit.require_start(tmp_path, TrainingPlan(leave_out=("dfdc",)))


def test_a_run_that_began_elsewhere_is_not_taken_up(tmp_path):
    (tmp_path / "features").mkdir()
    fit.claim_run(tmp_path, [], TrainingPlan(start="v3"))
    fit.claim_run(tmp_path, [], TrainingPlan(start="v3"))
    for other in (TrainingPlan(), TrainingPlan(start="v3", student_views=64)):
        with pytest.raises(TrainingDataError, match="began elsewhere"):
            fit.claim_run(tmp_path, [], other)


def test_a_run_goes_on_however_the_paths_of_its_files_are_spelt(tmp_path, monkeypatch):
    def sample(path: Path) -> Sample:
        return Sample(path=path, kind=MediaKind.IMAGE, label=0, source="s", group="g", generator="-", split="train")

    (tmp_path / "run" / "features").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    fit.claim_run(tmp_path / "run", [sample(tmp_path / "a.png")], TrainingPlan())
    fit.claim_run(tmp_path / "run", [sample(Path("a.png"))], TrainingPlan())
    with pytest.raises(TrainingDataError, match="other files or splits"):
        fit.claim_run(tmp_path / "run", [sample(Path("b.png"))], TrainingPlan())
