"""Which views are planned: sources by the root of their size, classes alike, clips with one seed; what they weigh."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from utils.errors import TrainingDataError, WeightsError
from utils.evaluation.layouts import Sample
from utils.training import fit
from utils.training.crop_set import PackedCrop
from utils.training.features import FeatureStore, head_views, student_views
from utils.training.planning import (
    BLENDS_SHARE,
    CLEAN,
    CLEAN_SHARE,
    FRAMES,
    RECODED,
    SMOOTH,
    SMOOTH_SHARE,
    TrainingPlan,
    drawn_views,
    head_weights,
    plan_balanced,
    plan_clean,
    plan_clip,
    planned,
)
from utils.training.views import View
from utils.types import MediaKind


def row(number: int, label: int, source: str = "s") -> PackedCrop:
    return PackedCrop(
        row=number, file=f"{number}.png", frame=0, kind="image", label=label, source=source, group=str(number),
        generator="gan" if label else "-", split="train", box=(40.0, 30.0, 210.0, 230.0), landmarks=((0.0, 0.0),) * 5,
        source_px=200.0, detector_score=0.9, picture_px=256,
    )  # fmt: skip


def rows(real: int, fake: int, source: str = "s", start: int = 0) -> list[PackedCrop]:
    return [row(start + i, int(i >= real), source) for i in range(real + fake)]


def test_sources_are_drawn_by_the_root_of_their_size_and_labels_alike():
    crops = [*rows(200, 200, "large"), *rows(8, 17, "small", start=400)]
    views = plan_balanced(crops, 200, seed=1)
    counts = Counter((view.source, view.label) for view in views)
    assert 140 < counts["large", 0] + counts["large", 1] < 180
    assert abs(counts["large", 0] - counts["large", 1]) < 12
    assert abs(counts["small", 0] - counts["small", 1]) < 6
    assert max(Counter(view.row for view in views).values()) <= 6
    assert all(view.processed and not view.clean for view in views)


def test_a_tiny_source_gives_no_crop_more_often_than_allowed():
    views = plan_balanced([*rows(2, 0, "tiny"), *rows(100, 100, "large", start=2)], 400, seed=2, most=3)
    assert sum(view.source == "tiny" for view in views) == 6


def test_blends_are_made_of_real_crops_alone():
    views = plan_balanced(rows(20, 20), 30, seed=3, blended=True)
    assert {(view.label, view.generator, view.blended, view.row < 20) for view in views} == {
        (1, "self-blend", True, True)
    }


def test_real_and_fake_count_alike_and_clean_pictures_by_the_root_of_their_source():
    crops = [*rows(40, 10, "a"), *rows(10, 0, "b", start=50)]
    views = [View(crop.row, crop.label, crop.source, crop.generator, 0, clean=True) for crop in crops]
    views += [View(crop.row, crop.label, crop.source, crop.generator, 9, processed=True) for crop in crops]
    weights = head_weights(views, crops)
    labels = np.array([view.label for view in views])
    assert weights.sum() == pytest.approx(len(views), rel=1e-4)
    assert weights[labels == 0].sum() == pytest.approx(weights[labels == 1].sum(), rel=1e-4)
    clean = {s: weights[[v.clean and v.source == s and not v.label for v in views]].sum() for s in "ab"}
    assert clean["a"] / clean["b"] == pytest.approx(2, rel=1e-3)
    blends = [View(crop.row, 1, crop.source, "self-blend", 9, blended=True, processed=True) for crop in crops[:20]]
    smooth = [
        View(crop.row, crop.label, crop.source, "-", 8, clean=True, processed=True) for crop in crops if not crop.label
    ]
    views = [*views, *blends, *smooth]
    weights = head_weights(views, crops)
    fakes = np.array([view.label == 1 for view in views])
    kinds = {
        "clean": np.array([v.clean and not v.processed for v in views]),
        "blended": np.array([v.blended for v in views]),
        "smooth": np.array([v.clean and v.processed for v in views]),
    }
    shares = {name: weights[of & fakes].sum() / weights[fakes].sum() for name, of in kinds.items()}
    assert shares == pytest.approx({"clean": CLEAN_SHARE, "blended": BLENDS_SHARE, "smooth": 0}, rel=1e-3)
    assert weights[kinds["smooth"]].sum() / weights[~fakes].sum() == pytest.approx(SMOOTH_SHARE, rel=1e-3)
    assert weights[kinds["clean"] & ~fakes].sum() / weights[~fakes].sum() == pytest.approx(CLEAN_SHARE, rel=1e-3)


def test_clean_views_are_at_most_so_many_per_source_and_label_and_never_repeated():
    crops = [*rows(8, 20), *rows(3, 0, "t", start=28)]
    views = plan_clean(crops, per_class=10, seed=1)
    assert Counter((v.source, v.label) for v in views) == {("s", 0): 8, ("s", 1): 10, ("t", 0): 3}
    assert max(Counter(v.row for v in views).values()) == 1
    assert all(v.clean and not v.processed for v in views)


def test_sources_of_clips_count_as_one_where_views_are_clean():
    mixed = [*rows(6, 0, "video:a"), *rows(0, 6, "video:b", start=6)]
    assert {v.source for v in plan_clean(mixed, per_class=4, seed=1)} == {"video"}


def test_plan_follows_from_its_seed_and_seeds_are_unique():
    one, two, other = (plan_balanced(rows(9, 9), 20, seed=s) for s in (1, 1, 2))
    assert one == two != other
    assert len({v.seed for v in [*one, *other]}) == len(one) + len(other)


def test_coding_as_a_video_is_drawn_without_regard_to_the_label():
    views = plan_balanced(rows(600, 600), 1200, seed=3, h264=0.4)
    shares = [np.mean([v.h264 for v in views if v.label == label]) for label in (0, 1)]
    assert shares == [pytest.approx(0.4, abs=0.06)] * 2


@pytest.mark.parametrize("blended", [False, True])
def test_clip_views_share_their_seed_and_keep_time_order(blended):
    frames = rows(5, 0)
    views = plan_clip(frames, seed=77, clean=False, blended=blended, unsteady=blended)
    assert [v.row for v in views] == [f.row for f in frames]
    assert {v.seed for v in views} == {77}
    assert {v.label for v in views} == {int(blended)}


def test_every_store_is_of_its_own_split_and_another_seed_draws_other_training_views(make_pack):
    pack = make_pack(pictures=32, clips=8)
    plan = TrainingPlan(views=20, beside=8, frames_per_clip=2)
    views = planned(pack, plan)
    for name, own in views.items():
        assert {pack.rows[v.row].split for v in own} == {"train" if name == RECODED else name.split("_")[0]}, name
        assert {pack.rows[v.row].kind for v in own} == {
            "video" if name.split("_")[-1] in ("video", "clips", "frames") else "image"
        }
    drawn = {view.row for view in views["train_frames"]}
    assert all(view.clean for view in views["train_frames"])
    assert len(drawn) == len(views["train_frames"]) == 2 * len(pack.videos("train"))
    assert all(v.blended for v in views["train_blends"])
    assert all(v.clean and v.processed for v in views[SMOOTH])
    again, other = (drawn_views(pack, plan, 20, 8, seed=seed) for seed in (0, 7))
    assert again == {name: views[name] for name in again}
    assert all(other[name] != views[name] for name in other)


def test_students_do_not_learn_from_what_is_as_it_comes_and_the_head_does(make_pack, tmp_path):
    pack = make_pack(pictures=32, clips=8)
    stores = {
        name: FeatureStore(tmp_path / name, own)
        for name, own in planned(pack, TrainingPlan(views=20, beside=8)).items()
        if own
    }
    for store in stores.values():
        store.extract(pack, lambda batch: np.zeros((len(batch), 1, 2), np.float16))
    of_student, of_head = student_views(stores).views, head_views(stores).views
    assert not any(view.clean for view in of_student)
    assert set(of_head) - set(of_student) == {view for name in (CLEAN, FRAMES, SMOOTH) for view in stores[name].views}
    assert {pack.rows[view.row].split for view in of_head} == {"train"}


# What a training refuses before any work is done: a start that has seen too much, a run of others.


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
    for other, said in ((TrainingPlan(), "another start"), (TrainingPlan(start="v3", views=9), "other views")):
        with pytest.raises(TrainingDataError, match=f"with {said}; name another --run"):
            fit.claim_run(tmp_path, [], other)


def test_a_run_goes_on_however_the_paths_of_its_files_are_spelt(tmp_path, monkeypatch):
    def sample(path: Path) -> Sample:
        return Sample(path=path, kind=MediaKind.IMAGE, label=0, source="s", group="g", generator="-", split="train")

    (tmp_path / "run" / "features").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    fit.claim_run(tmp_path / "run", [sample(tmp_path / "a.png")], TrainingPlan())
    fit.claim_run(tmp_path / "run", [sample(Path("a.png"))], TrainingPlan())
    with pytest.raises(TrainingDataError, match="with other files, labels or splits;"):
        fit.claim_run(tmp_path / "run", [sample(Path("b.png"))], TrainingPlan())


def test_nothing_is_left_out_of_one_source(make_pack, tmp_path):
    pack = make_pack(pictures=32)
    plan = TrainingPlan(views=20, beside=8, folds=3)
    stores = {n: FeatureStore(tmp_path / n, own) for n, own in planned(pack, plan).items() if own}
    for store in stores.values():
        store.extract(pack, lambda batch: np.zeros((len(batch), 1, 2), np.float16))
    assert fit.score_strangers(pack, stores, tmp_path / "run", tmp_path, plan) is None
    assert not (tmp_path / "run").exists()
