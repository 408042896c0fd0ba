"""The same picture in two splits is found and left out of the less protected one; different faces are not."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from utils.errors import TrainingDataError
from utils.faces.crops import jpeg
from utils.training.crop_set import Pack, find_twins, without_names, without_twins
from utils.types import MediaKind


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
