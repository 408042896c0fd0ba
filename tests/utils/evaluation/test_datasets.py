"""Manifests and folders become samples; damaged ones are refused by line; a group never lies in two splits."""

from __future__ import annotations

import json
import random
import string
import tempfile
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.errors import TrainingDataError
from utils.evaluation.datasets import BLENDS, DRIVEN, PORTRAITS, SWAPS, check_groups, family_of, is_of, read_samples
from utils.evaluation.layouts import Sample, read_layout
from utils.types import MediaKind

HEADER = "file,split,source,label,group,generator"


def manifest(folder: Path, *rows: str, header: str = HEADER, encoding: str = "utf-8") -> Path:
    """A manifest with these rows; `a.png` and `b.mp4` exist beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a.png", "b.mp4"):
        (folder / name).touch()
    (folder / "manifest.csv").write_text("\n".join([header, *rows]) + "\n", encoding=encoding)
    return folder


def test_manifest_gives_every_fact_of_its_rows(tmp_path):
    root = manifest(tmp_path, "a.png,val,camera,fake,anna,gan", "b.mp4,val,camera,real,ben,-")
    picture, clip = read_samples(root)
    assert picture == Sample(root / "a.png", MediaKind.IMAGE, 1, "camera", "anna", "gan", "val")
    assert (clip.kind, clip.label, clip.source) == (MediaKind.VIDEO, 0, "video:camera")


def test_manifests_one_level_below_are_joined(tmp_path):
    manifest(tmp_path / "one", "a.png,val,one,fake,g,x")
    manifest(tmp_path / "two", "a.png,val,two,real,g,-")
    assert [s.source for s in read_samples(tmp_path)] == ["one", "two"]


def test_byte_order_mark_of_a_spreadsheet_is_no_part_of_a_column(tmp_path):
    assert len(read_samples(manifest(tmp_path, "a.png,val,s,real,g,-", encoding="utf-8-sig"))) == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a.png,val,s,real,g,-", "a.png,val,s,maybe,g,-"], "line 3: label must be"),
        (["a.png,test,s,real,g,-"], "line 2: label must be real or fake, split train or val"),
        (["gone.png,val,s,real,g,-"], "line 2: there is no file gone.png"),
        ([",val,s,real,g,-"], "line 2: file must not be empty"),
        (["a.png,val,s,real,,-"], "line 2: group must not be empty"),
        (["a.png,val"], "line 2: group, source must not be empty"),
        (["manifest.csv,val,s,real,g,-"], "line 2: the suffix of manifest.csv"),
        ([], "lists no files"),
    ],
)
def test_damaged_rows_are_refused_by_line(tmp_path, rows, message):
    with pytest.raises(TrainingDataError, match=message):
        read_samples(manifest(tmp_path, *rows))


def test_recordings_and_files_that_stand_apart_are_passed_over(tmp_path):
    manifest(tmp_path / "pictures", "a.png,val,s,real,g,-", "a.png,apart,s,restored,h,-")
    manifest(tmp_path / "speech", "x.flac,val,s,real,g,w", header="file,split,source,label,speaker,system")
    assert [s.group for s in read_samples(tmp_path)] == ["g"]


def test_missing_columns_are_named(tmp_path):
    with pytest.raises(TrainingDataError, match="line 1: the columns generator, group are missing"):
        read_samples(manifest(tmp_path, "a.png,val,s,real", header="file,split,source,label"))


def test_binary_file_is_no_manifest(tmp_path):
    (tmp_path / "manifest.csv").write_bytes(b"\xff\xd8\xff\xe0 file,split")
    with pytest.raises(TrainingDataError, match="UTF-8"):
        read_samples(tmp_path)


def test_group_that_a_manifest_divides_is_refused(tmp_path):
    with pytest.raises(TrainingDataError, match="group anna of s is in"):
        read_samples(manifest(tmp_path, "a.png,val,s,real,anna,-", "b.mp4,train,s,fake,anna,x"), calib_share=0)


def test_folders_give_labels_groups_and_kinds(tmp_path):
    for name in (
        "real/anna/1.jpg",
        "real/anna/2.mp4",
        "real/ben.PNG",
        "fake/anna/x.webp",
        "fake/y.mov",
        "fake/notes.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = {s.path.name: s for s in read_samples(tmp_path)}
    assert set(found) == {"1.jpg", "2.mp4", "ben.PNG", "x.webp", "y.mov"}
    assert {found[n].split for n in ("1.jpg", "2.mp4", "x.webp")} == {found["1.jpg"].split}
    assert (found["ben.PNG"].label, found["ben.PNG"].group, found["ben.PNG"].generator) == (0, "real/ben", "-")
    assert (found["y.mov"].label, found["y.mov"].kind, found["y.mov"].generator) == (1, MediaKind.VIDEO, "unknown")


def test_folder_without_files_says_which_and_what_lies_there(tmp_path):
    (tmp_path / "people").mkdir()
    with pytest.raises(TrainingDataError, match=r"real holds 0 pictures or videos.*holds: people\."):
        read_samples(tmp_path)


def place(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize(("real", "fake"), [("Real", "Fake"), ("training_real", "training_fake"), ("REAL", "fake-jpg")])
def test_folders_may_spell_their_label_as_people_do(tmp_path, real, fake):
    place(tmp_path, f"{real}/1.jpg", f"{real}/anna/2.jpg", f"{fake}/1.jpg", f"{fake}/anna/2.jpg", "real_and_fake/3.jpg")
    found = {str(s.path.relative_to(tmp_path)): (s.label, s.group) for s in read_samples(tmp_path)}
    assert found == {
        f"{real}/1.jpg": (0, "real/1"),
        f"{real}/anna/2.jpg": (0, "anna"),
        f"{fake}/1.jpg": (1, "fake/1"),
        f"{fake}/anna/2.jpg": (1, "anna"),
    }


@pytest.mark.parametrize("valid", ["valid", "val", "Validation"])
def test_folders_may_say_the_split(tmp_path, valid):
    for split in ("train", valid, "test"):
        place(tmp_path, *(f"{split}/{label}/{number}.jpg" for label in ("real", "Fake") for number in range(9)))
    samples = read_samples(tmp_path)
    assert len(samples) == 54
    for sample in samples:
        splits = ("train", "calib") if sample.path.parent.parent.name == "train" else ("val",)
        assert sample.split in splits
        assert sample.label == int(sample.path.parent.name == "Fake")


def test_training_folders_alone_are_divided(tmp_path):
    place(tmp_path, *(f"train/{label}/{number}.jpg" for label in ("real", "fake") for number in range(60)))
    assert {s.split for s in read_samples(tmp_path)} == {"train", "calib", "val"}


def test_a_file_under_both_labels_is_refused_by_name(tmp_path):
    place(tmp_path, "real/a.png", "real/b.png", "fake/c.png", "fake/d.png")
    for name, data in (("real/a", b"one"), ("real/b", b"two"), ("fake/c", b"six"), ("fake/d", b"two")):
        (tmp_path / f"{name}.png").write_bytes(data)
    with pytest.raises(TrainingDataError, match=r"real/b\.png and .*fake/d\.png are the same file"):
        read_samples(tmp_path)


NAMES = st.text(string.ascii_lowercase, min_size=1, max_size=3)
FILES = st.lists(
    st.tuples(st.sampled_from(["real", "fake"]), NAMES, NAMES, st.sampled_from([".jpg", ".mp4"])),
    min_size=4, max_size=30, unique=True,
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(files=FILES, seed=st.integers(0, 50), share=st.floats(0, 0.6))
def test_groups_are_never_divided_whatever_kinds_they_hold(files, seed, share):
    with tempfile.TemporaryDirectory() as folder:
        for side, person, stem, suffix in [
            *files,
            *((s, "p", f"q{i}", ".jpg") for s in ("real", "fake") for i in (1, 2)),
        ]:
            path = Path(folder, side, person, stem + suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        samples = read_samples(Path(folder), calib_share=share, val_share=share, seed=seed)
    splits: dict[str, set[str]] = {}
    for sample in samples:
        splits.setdefault(sample.group, set()).add(sample.split)
    assert all(len(of_group) == 1 for of_group in splits.values())


@settings(max_examples=20, deadline=None)
@given(order=st.randoms(use_true_random=False), seed=st.integers(0, 9))
def test_splits_do_not_depend_on_the_order_of_rows(order, seed):
    rows = [f"a.png,train,s,{('real', 'fake')[i % 2]},g{i},-" for i in range(40)]
    with tempfile.TemporaryDirectory() as folder:
        first = {s.group: s.split for s in read_samples(manifest(Path(folder), *rows), seed=seed)}
        order.shuffle(rows)
        second = {s.group: s.split for s in read_samples(manifest(Path(folder), *rows), seed=seed)}
    assert first == second


def test_shares_are_about_as_asked_and_clips_give_twice_as_many(tmp_path):
    pictures = [f"a.png,train,s,real,p{i},-" for i in range(1000)]
    clips = [f"b.mp4,train,s,real,c{i},-" for i in range(1000)]
    samples = read_samples(manifest(tmp_path, *pictures, *clips), calib_share=0.15)
    held = [sum(s.split == "calib" for s in samples if s.kind is kind) for kind in MediaKind]
    assert 110 < held[0] < 190
    assert 250 < held[1] < 350


def test_other_seed_divides_otherwise(tmp_path):
    root = manifest(tmp_path, *(f"a.png,train,s,real,g{i},-" for i in range(60)))
    assert [s.split for s in read_samples(root, seed=1)] != [s.split for s in read_samples(root, seed=2)]


def test_check_groups_accepts_equal_names_of_different_sources():
    one = Sample(Path("a.png"), MediaKind.IMAGE, 0, "s", "g", "-", "train")
    other = Sample(Path("a.png"), MediaKind.IMAGE, 0, "t", "g", "-", "val")
    check_groups([one, other])
    with pytest.raises(TrainingDataError):
        check_groups(random.Random(0).sample([one, Sample(Path("b"), MediaKind.IMAGE, 1, "s", "g", "x", "val")], 2))


def test_sample_checks_itself():
    with pytest.raises(ValueError, match="label"):
        Sample(Path("a.png"), MediaKind.IMAGE, 2, "s", "g", "-", "train")
    with pytest.raises(ValueError, match="split"):
        Sample(Path("a.png"), MediaKind.IMAGE, 1, "s", "g", "-", "test")


@pytest.mark.parametrize(
    ("generator", "family"),
    [
        ("DFDC face swap", SWAPS), ("FF++ Deepfakes", SWAPS), ("FF++ Face2Face", DRIVEN),
        ("SadTalker audio-driven", DRIVEN), ("StyleGAN1", PORTRAITS), ("SDXL", PORTRAITS), ("self-blend", BLENDS),
        ("self-blend clip", BLENDS),
    ],
)  # fmt: skip
def test_family_follows_from_the_name(generator, family):
    assert family_of(generator) == family


def test_a_name_means_a_source_with_its_parts_a_generator_or_a_family():
    assert is_of("dfdc", "dfdc", "-")
    assert is_of("dfdc", "video:dfdc", "-")
    assert is_of("dfdc", "video:dfdc_facecrops", "DFDC face swap")
    assert not is_of("dfdc", "dfdcx", "-")
    assert is_of("SDXL", "diffusion", "SDXL")
    assert not is_of("SDXL", "diffusion", "-")
    assert is_of(DRIVEN, "video:x", "EDTalk audio/video-driven")
    assert not is_of(PORTRAITS, "ffhq", "-"), "real pictures have no generator"


# Well-known data sets as they come: labels, groups that never cross splits, splits of the data set's own lists.


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
