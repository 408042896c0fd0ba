"""What is made ready for training: which self-blends the head sees, where redrawn crops come in."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from utils.errors import TrainingDataError, WeightsError
from utils.evaluation.datasets import Sample
from utils.training import fit
from utils.training.plan import TrainingPlan
from utils.types import Box, Face, MediaKind


def tokens_of(batch):
    return np.zeros((len(batch), 1, 2), np.float16)


def test_redrawn_crops_are_made_of_training_crops_only(make_pack, tmp_path, monkeypatch):
    pack = make_pack(pictures=24, clips=8)

    class Same:
        def to(self, device):
            return self

    monkeypatch.setattr(fit, "fetched_redrawer", lambda folder: Same())
    monkeypatch.setattr("utils.training.super_resolution.redraw", lambda net, pixels, side, device: pixels)
    plan = TrainingPlan(redrawn=4, frames_per_clip=2)
    drawn = fit.with_redrawn(pack, plan, tmp_path, tmp_path, device="cpu")
    assert {(pack.rows[n].split, pack.rows[n].label) for n in drawn.redrawn} == {("train", 0)}
    assert {pack.rows[n].kind for n in drawn.redrawn} == {"image", "video"}
    none = dataclasses.replace(plan, redrawn=0)
    assert fit.with_redrawn(pack, none, tmp_path, tmp_path, device="cpu") is pack


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
    drawn = fit.with_portraits(pack, plan, tmp_path, tmp_path, Grey())
    assert {(pack.rows[n].split, pack.rows[n].label) for n in drawn.portraits} == {("train", 0)}
    assert {pack.rows[n].kind for n in drawn.portraits} == {"image", "video"}
    none = dataclasses.replace(plan, portraits=0)
    assert fit.with_portraits(pack, none, tmp_path, tmp_path, Grey()) is pack


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
