"""Packing continues where it was stopped, lists what has no face, and measures framing. The detector is a stand-in."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from tests.utils.media.films import write_clip
from utils.errors import TrainingDataError
from utils.evaluation.layouts import Sample
from utils.faces.crops import PACK_PX, crop_for_networks
from utils.training import crop_set
from utils.training.crop_set import count_table, framing_table, load_pack, pack_faces
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


def test_framing_and_count_tables(samples, tmp_path):
    wide = sample(picture(tmp_path / "wide.png", 90, size=128))
    pack = pack_faces([*samples, wide], tmp_path / "pack", BrightIsFace())
    count, low, median, high = framing_table(pack)["shots"]
    assert count == 8
    assert low == pytest.approx(0.5)
    assert median == pytest.approx(0.5)
    assert high == pytest.approx(0.5)
    assert count_table(pack) == {("train", "shots", 0): 5, ("train", "shots", 1): 3}


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
