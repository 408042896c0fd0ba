"""What a training refuses before any work is done: a start that has seen too much, a run of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.errors import TrainingDataError, WeightsError
from utils.evaluation.datasets import Sample
from utils.training import fit
from utils.training.plan import TrainingPlan
from utils.types import MediaKind


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
