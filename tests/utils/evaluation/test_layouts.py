"""Well-known data sets as they come: labels, groups that never cross splits, splits of the data set's own lists."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from utils.errors import TrainingDataError
from utils.evaluation.datasets import read_samples
from utils.evaluation.layouts import read_layout


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@pytest.fixture
def faceforensics(tmp_path: Path) -> Path:
    return touch(
        tmp_path,
        "original_sequences/youtube/c23/videos/000.mp4",
        "original_sequences/youtube/c23/videos/003.mp4",
        "original_sequences/youtube/c23/videos/017.mp4",
        "original_sequences/actors/c23/videos/01__hugging_happy.mp4",
        "manipulated_sequences/Deepfakes/c23/videos/000_003.mp4",
        "manipulated_sequences/FaceSwap/c23/videos/003_000.mp4",
        "manipulated_sequences/FaceSwap/c23/frames/017_803/0001.png",
        "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__hugging_happy__YVGY8LOK.mp4",
    )


def test_faceforensics_keeps_both_halves_of_a_swap_together(faceforensics):
    rows = {str(r.path.relative_to(faceforensics)): r for r in read_layout(faceforensics)}
    group = {name: row.group for name, row in rows.items()}
    assert len(rows) == 8
    assert {group[n] for n in group if Path(n).stem in ("000", "003", "000_003", "003_000")} == {"000_003"}
    assert group["original_sequences/youtube/c23/videos/017.mp4"] == "017_803"
    frame = rows["manipulated_sequences/FaceSwap/c23/frames/017_803/0001.png"]
    assert (frame.label, frame.generator, frame.group, frame.split) == (1, "FaceSwap", "017_803", "")
    actors = [r for r in rows.values() if r.group.startswith("actor")]
    assert [(r.label, r.group) for r in actors] == [(1, "actor 01"), (0, "actor 01")]


def test_faceforensics_takes_the_splits_of_its_lists(faceforensics):
    (faceforensics / "train.json").write_text(json.dumps([["003", "000"]]))
    (faceforensics / "test.json").write_text(json.dumps([["017", "803"]]))
    splits = {s.group: s.split for s in read_samples(faceforensics, calib_share=0.0)}
    assert splits["000_003"] == "train"
    assert splits["017_803"] == "val"


@pytest.mark.parametrize("text", ["{}", "[1]", '[["000"]]', "no json"])
def test_faceforensics_lists_that_are_none_are_refused(faceforensics, text):
    (faceforensics / "train.json").write_text(text)
    with pytest.raises(TrainingDataError, match=r"train\.json"):
        read_layout(faceforensics)


def test_celeb_df_validates_whole_people(tmp_path):
    touch(
        tmp_path, "Celeb-real/id0_0000.mp4", "Celeb-real/id1_0000.mp4", "Celeb-synthesis/id0_id1_0000.mp4",
        "Celeb-synthesis/id1_id0_0000.mp4", "YouTube-real/00001.mp4", "YouTube-real/00002.mp4",
    )  # fmt: skip
    listing = tmp_path / "List_of_testing_videos.txt"
    listing.write_text("1 YouTube-real/00002.mp4\n0 Celeb-synthesis/id1_id0_0000.mp4\n")
    rows = {r.path.stem: (r.label, r.group, r.split) for r in read_layout(tmp_path)}
    assert rows["id1_0000"] == (False, "id1", "val")
    assert rows["id1_id0_0000"] == (True, "id1", "val")
    assert rows["id0_id1_0000"] == (True, "id0", "train")
    assert (rows["00001"][2], rows["00002"][2]) == ("train", "val")
    listing.write_text("maybe Celeb-real/id0_0000.mp4\n")
    with pytest.raises(TrainingDataError, match="line 1"):
        read_layout(tmp_path)


def test_dfdc_groups_fakes_with_their_originals(tmp_path):
    part = touch(tmp_path / "dfdc_train_part_0", "aaa.mp4", "bbb.mp4", "ccc.mp4")
    facts = {
        "aaa.mp4": {"label": "FAKE", "split": "train", "original": "bbb.mp4"},
        "bbb.mp4": {"label": "REAL", "split": "train", "original": None},
        "ccc.mp4": {"label": "REAL", "split": "test"},
        "not_here.mp4": {"label": "FAKE", "split": "train", "original": "ccc.mp4"},
    }
    (part / "metadata.json").write_text(json.dumps(facts))
    rows = {r.path.name: r for r in read_layout(tmp_path)}
    assert set(rows) == {"aaa.mp4", "bbb.mp4", "ccc.mp4"}
    assert rows["aaa.mp4"].group == rows["bbb.mp4"].group == "bbb"
    assert (rows["aaa.mp4"].split, rows["ccc.mp4"].split) == ("", "val")
    assert [s.source for s in read_samples(tmp_path)] == ["video:dfdc"] * 3
    (part / "metadata.json").write_text(json.dumps({"aaa.mp4": {"label": "UNSURE"}}))
    with pytest.raises(TrainingDataError, match=r"aaa\.mp4 must be REAL or FAKE"):
        read_layout(tmp_path)


def test_no_group_is_ever_in_two_splits(faceforensics):
    split_of = defaultdict(set)
    for seed in range(20):
        for sample in read_samples(faceforensics, val_share=0.4, calib_share=0.3, seed=seed):
            split_of[seed, sample.group].add(sample.split)
    assert {len(splits) for splits in split_of.values()} == {1}
    assert len({next(iter(s)) for s in split_of.values()}) == 3


def test_other_folders_are_no_known_layout(tmp_path):
    assert read_layout(touch(tmp_path, "real/a.png", "fake/b.png", "metadata.json")) == []
    with pytest.raises(TrainingDataError, match=r"Celeb-DF, but holds none"):
        read_layout(touch(tmp_path / "empty", "Celeb-real/readme.txt", "Celeb-synthesis/readme.txt"))
