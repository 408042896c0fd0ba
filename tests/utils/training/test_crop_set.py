"""Packing continues where it was stopped, lists what has no face, and measures framing. The detector is a stand-in."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from tests.utils.media.films import write_clip
from utils.errors import TrainingDataError
from utils.evaluation.layouts import Sample
from utils.faces.crops import PACK_PX, crop_for_networks, jpeg
from utils.training import crop_set
from utils.training.crop_set import Pack, find_twins, load_pack, pack_faces, without_names, without_twins
from utils.training.views import View, render
from utils.types import Box, Face, MediaKind


class BrightIsFace:
    """Finds a face of half the picture's side in the middle of every picture that is not dark."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.calls = 0
        self.stop_after = stop_after

    def detect(self, rgb):
        if self.calls >= self.stop_after:
            raise InterruptedError("stopped")
        self.calls += 1
        if rgb.mean() < 40:
            return ()
        height, width = rgb.shape[:2]
        quarter = min(height, width) / 4
        x, y = width / 2, height / 2
        marks = np.array([[-0.4, -0.4], [0.4, -0.4], [0, 0], [-0.3, 0.4], [0.3, 0.4]], np.float32) * quarter
        box = Box(x - quarter, y - quarter, x + quarter, y + quarter)
        return (Face(box, 0.9, marks + np.array([x, y], np.float32)),)


def picture(path: Path, level: int, size: int = 64) -> Path:
    pixels = np.random.default_rng(level).integers(0, 30, (size, size, 3)) + level
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def sample(path: Path, label: int = 0, split: str = "train") -> Sample:
    return Sample(path, MediaKind.IMAGE, label, "shots", path.stem, "-", split)


@pytest.fixture
def samples(tmp_path):
    return [sample(picture(tmp_path / f"{i}.png", 60 + 10 * i), i % 2) for i in range(7)]


def test_interrupted_packing_goes_on_and_gives_what_one_go_gives(samples, tmp_path, monkeypatch):
    monkeypatch.setattr(crop_set, "CHUNK", 3)
    whole = pack_faces(samples, tmp_path / "whole", BrightIsFace())
    with pytest.raises(InterruptedError):
        pack_faces(samples, tmp_path / "parts", BrightIsFace(stop_after=4))
    assert [p.name for p in (tmp_path / "parts").glob("part-*")] == ["part-000000.npz"]
    rest = BrightIsFace()
    resumed = pack_faces(samples, tmp_path / "parts", rest)
    assert rest.calls == 4
    assert resumed.rows == whole.rows
    assert np.array_equal(resumed.pixels, whole.pixels)
    assert list((tmp_path / "parts").glob("part-*")) == []


def test_finished_pack_is_loaded_without_looking_again(samples, tmp_path):
    first = pack_faces(samples, tmp_path / "pack", BrightIsFace())
    again = pack_faces(samples, tmp_path / "pack", BrightIsFace(stop_after=0))
    assert again.rows == first.rows == load_pack(tmp_path / "pack").rows
    assert first.pixels.shape == (7, PACK_PX, PACK_PX, 3)
    assert [row.row for row in first.rows] == list(range(7))


def test_a_finished_pack_of_other_files_is_kept_and_a_begun_one_starts_anew(samples, tmp_path, monkeypatch):
    pack_faces(samples, tmp_path / "pack", BrightIsFace())
    with pytest.raises(TrainingDataError, match="faces of other files; name another folder, or delete it"):
        pack_faces(samples[:2], tmp_path / "pack", BrightIsFace())
    assert len(pack_faces(samples, tmp_path / "pack", BrightIsFace(stop_after=0)).rows) == 7
    begun = tmp_path / "begun"
    monkeypatch.setattr("utils.training.crop_set.CHUNK", 2)
    with pytest.raises(InterruptedError):
        pack_faces(samples, begun, BrightIsFace(stop_after=2))
    assert list(begun.glob("part-*")), "some of it was kept"
    assert [row.file for row in pack_faces(samples[1:2], begun, BrightIsFace()).rows] == [str(samples[1].path)]


def test_the_same_files_by_another_path_are_the_same(samples, tmp_path, monkeypatch):
    pack_faces(samples, tmp_path / "pack", BrightIsFace())
    monkeypatch.chdir(samples[0].path.parent)
    spelt = [dataclasses.replace(s, path=Path("..") / Path.cwd().name / s.path.name) for s in samples]
    again = pack_faces(spelt, tmp_path / "pack", BrightIsFace(stop_after=0))
    assert next(row.file for row in again.rows if row.kind == "image") == str(spelt[0].path)
    assert len(again.rows) == 7


def test_split_and_label_are_always_those_of_the_present_samples(samples, tmp_path):
    pack_faces(samples, tmp_path / "pack", BrightIsFace())
    moved = [dataclasses.replace(s, split="val", label=1 - s.label) for s in samples]
    pack = pack_faces(moved, tmp_path / "pack", BrightIsFace(stop_after=0))
    assert [(r.split, r.label) for r in pack.rows] == [("val", s.label) for s in moved]


def test_files_without_a_face_and_broken_files_are_listed(samples, tmp_path):
    dark = sample(picture(tmp_path / "dark.png", 1))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    pack = pack_faces([*samples, dark, sample(tmp_path / "broken.png")], tmp_path / "pack", BrightIsFace())
    assert [Path(name).name for name in pack.without_face] == ["dark.png"]
    assert [Path(name).name for name in pack.unreadable] == ["broken.png"]
    assert len(pack.rows) == 7


def test_no_face_at_all_is_refused(tmp_path):
    with pytest.raises(TrainingDataError, match="No face was found"):
        pack_faces([sample(picture(tmp_path / "dark.png", 1))], tmp_path / "pack", BrightIsFace())


def test_clip_gives_one_row_per_frame_in_time_order(tmp_path):
    write_clip(tmp_path / "clip.mp4", [np.full((64, 64, 3), 60 + 10 * i, np.uint8) for i in range(10)])
    clip = Sample(tmp_path / "clip.mp4", MediaKind.VIDEO, 1, "video:s", "g", "x", "train")
    pack = pack_faces([clip], tmp_path / "pack", BrightIsFace(), frames=5)
    (frames,) = pack.videos("train").values()
    assert [r.frame for r in frames] == list(range(5))
    assert np.all(np.diff([pack.pixels[r.row].mean() for r in frames]) > 0)
    assert pack.select("train", MediaKind.IMAGE) == []


def test_index_is_plain_json(samples, tmp_path):
    pack_faces(samples, tmp_path / "pack", BrightIsFace())
    assert set(json.loads((tmp_path / "pack" / "index.json").read_text())) == {"rows", "without_face", "unreadable"}


def test_training_and_product_see_the_same_crop(tmp_path, face_detector):
    """What calibration and validation look at is, bit for bit, what the pipeline hands to the networks."""
    photo = tmp_path / "astronaut.png"
    Image.fromarray(astronaut()).save(photo)
    pack = pack_faces([sample(photo)], tmp_path / "pack", face_detector)
    (face,) = face_detector.detect(astronaut())
    seen = render(pack, View(0, 0, "s", "-", 0, clean=True))
    assert np.array_equal(seen, crop_for_networks(astronaut(), face).pixels)


# The same picture in two splits is found and left out of the less protected one; different faces are not.


def packed(make_pack, changes) -> Pack:
    """A pack in which `changes` maps a row of one split to (row of another split, what happened to its picture)."""
    pack = make_pack(pictures=24)
    pixels = np.array(pack.pixels)
    rng = np.random.default_rng(0)
    for i in range(len(pixels)):  # structure of its own for every picture
        coarse = rng.uniform(0, 255, (6, 6, 3)).astype(np.float32)
        pixels[i] = np.clip(cv2.resize(coarse, pixels.shape[1:3], interpolation=cv2.INTER_CUBIC), 0, 255)
    for row, (of, change) in changes.items():
        pixels[row] = change(pixels[of])
    return Pack(pixels, pack.rows, pack.without_face)


def first(make_pack, split: str) -> int:
    return next(r.row for r in make_pack(pictures=24).rows if r.split == split and r.kind == "image")


@pytest.mark.parametrize(
    ("less", "more", "change"),
    [
        ("train", "val", lambda p: p),
        ("train", "val", lambda p: np.clip(p * 0.9 + 8, 0, 255).astype(np.uint8)),
        ("train", "calib", lambda p: jpeg(p, 40)),
        ("calib", "val", lambda p: cv2.resize(cv2.resize(p, (90, 90)), p.shape[:2])),
    ],
    ids=["same", "light", "jpeg", "rescaled"],
)
def test_twins_are_found_and_the_less_protected_one_goes(make_pack, less, more, change):
    low, high = first(make_pack, less), first(make_pack, more)
    pack = packed(make_pack, {low: (high, change)})
    assert find_twins(pack) == {low: high}
    rest = without_twins(pack, {low})
    assert [r.row for r in rest.rows] == [r.row for r in pack.rows]
    assert {r.row for r in rest.rows if r.split == "left out"} == {low}
    assert low not in {r.row for r in rest.select(less, MediaKind.IMAGE)}
    assert find_twins(rest) == {}


def test_other_pictures_and_twins_within_a_split_stay(make_pack):
    pack = packed(make_pack, {})
    assert find_twins(pack) == {}
    one, two = [r.row for r in pack.rows if r.split == "train" and r.kind == "image"][:2]
    pixels = np.array(pack.pixels)
    pixels[two] = pixels[one]
    assert find_twins(dataclasses.replace(pack, pixels=pixels)) == {}


def test_names_that_are_left_out_stay_in_validation_alone(make_pack):
    pack = make_pack(pictures=24, clips=8)
    rest = without_names(pack, ["tint"])
    assert {(r.split, r.label) for r in rest.rows if r.generator == "tint"} == {("left out", 1), ("val", 1)}
    assert [r for r in rest.rows if r.label == 0] == [r for r in pack.rows if r.label == 0]
    whole = without_names(pack, ["shots"])
    assert {r.split for r in whole.rows} == {"left out", "val"}, "clips of a source go with its pictures"


def test_a_name_that_nothing_has_is_refused(make_pack):
    with pytest.raises(TrainingDataError, match="nothing"):
        without_names(make_pack(pictures=8), ["tint", "nothing"])
