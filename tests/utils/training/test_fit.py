"""What a training refuses before any work is done: a start that has seen too much, a run of others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from utils.errors import TrainingDataError, WeightsError
from utils.evaluation.layouts import Sample
from utils.training import fit
from utils.training.features import FeatureStore
from utils.training.plan import TrainingPlan
from utils.training.planning import planned
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
    before = (tmp_path / "run.json").stat()
    fit.claim_run(tmp_path, [], TrainingPlan(start="v3"))
    after = (tmp_path / "run.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns), "others may be reading it"
    for other in (TrainingPlan(), TrainingPlan(start="v3", views=9)):
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


def test_nothing_is_left_out_of_one_source(make_pack, tmp_path):
    pack = make_pack(pictures=32)
    plan = TrainingPlan(views=20, beside=8, folds=3)
    stores = {n: FeatureStore(tmp_path / n, own) for n, own in planned(pack, plan).items() if own}
    for store in stores.values():
        store.extract(pack, lambda batch: np.zeros((len(batch), 1, 2), np.float16))
    assert fit.score_strangers(pack, stores, tmp_path / "run", tmp_path, plan) is None
    assert not (tmp_path / "run").exists()
