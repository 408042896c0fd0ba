"""Covers are drawn over the face, and a probe of covers is fitted from labelled views and held at its threshold."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import skimage.data
from PIL import Image

from benchmarks.covers import DRAWN, Canvas, taken_over
from benchmarks.filtered_photos import FILTERS
from benchmarks.fit_cover import WORN, Picture, Row, fit, left_out, read_pictures, shares, views
from benchmarks.fit_no_photo import LAYERS, made, stored
from benchmarks.fit_no_photo import fit as fit_no_photo
from benchmarks.no_photos import KINDS
from models.vision_transformer import build_vit
from utils.detection.face_report import NO_PHOTO
from utils.errors import TrainingDataError
from utils.faces.crops import CROP_PX, crop_for_networks
from utils.networks import load_vit_base
from utils.training.experts import new_network
from utils.training.features import TorchFeaturizer
from utils.types import Box, Face

LANDMARKS = np.array([[200, 112], [250, 107], [229, 138], [206, 164], [254, 160]], np.float32)
FACE = Face(Box(172, 62, 283, 216), 0.9, LANDMARKS)
CROP = crop_for_networks(skimage.data.astronaut(), FACE)


@pytest.mark.parametrize("kind", DRAWN)
def test_a_cover_changes_a_part_of_the_face_and_nothing_else(kind: str) -> None:
    rng = np.random.default_rng(5)
    changed = []
    for _ in range(8):
        covered = DRAWN[kind](Canvas(CROP.pixels, CROP.landmarks, rng))
        assert covered.shape == CROP.pixels.shape
        changed.append(float((np.abs(covered.astype(int) - CROP.pixels).max(2) > 12).mean()))
    assert 0.03 < np.median(changed) < 0.7


def test_the_eyes_of_another_face_are_put_where_the_eyes_are() -> None:
    other = np.full_like(CROP.pixels, 7)
    mixed = taken_over(CROP.pixels, CROP.landmarks, other, CROP.landmarks, "eyes", np.random.default_rng(0))
    dark = (mixed.mean(2) < 60) & (CROP.pixels.mean(2) > 90)
    rows = np.nonzero(dark)[0]
    assert dark.mean() > 0.01
    assert abs(rows.mean() - CROP.landmarks[:2, 1].mean()) < 12


def test_every_kind_of_view_is_made() -> None:
    plain = [Picture(f"s{n}", "real", "", CROP) for n in range(3)]
    worn = [Picture("s9", "real", note, CROP) for note in WORN]
    found = list(views([*plain, *worn], np.random.default_rng(1)))
    assert {kind for kind, *_ in found} == {"plain", "drawn", "worn", "taken", "control"}
    assert {what for kind, _, what, _ in found if kind == "worn"} == set(WORN)
    assert all(pixels.shape == CROP.pixels.shape for *_, pixels in found)


def test_a_probe_is_fitted_and_judged_by_other_sources() -> None:
    rng = np.random.default_rng(2)
    direction = rng.normal(0, 1, 32)
    rows = []
    for kind in ("plain", "control", "drawn", "worn", "taken"):
        for number in range(80):
            signal = direction if kind in ("drawn", "worn", "taken") else -direction
            tokens = (signal + rng.normal(0, 1.5, 32)).astype(np.float32)
            what = list(WORN)[number % 3] if kind in ("worn", "taken") else ""
            rows.append(Row(kind, f"s{number % 8}", "real", what, tokens))
    logits = left_out(rows, 1e-2, np.random.default_rng(1))
    covered = np.array([row.kind in ("drawn", "worn", "taken") for row in rows])
    assert np.mean((logits > 0) == covered) > 0.97
    weight, _ = fit(rows, 1e-2)
    assert float(weight @ direction / np.linalg.norm(weight) / np.linalg.norm(direction)) > 0.8
    assert shares(rows, covered)["plain real"] == "0 of 80"


def test_pictures_are_read_by_their_notes(tmp_path: Path) -> None:
    Image.fromarray(skimage.data.astronaut()).save(tmp_path / "a.png")
    rows = [("a.png", "train", "x", "real", ""), ("a.png", "train", "y", "real", "trap: hat or head cover")]
    analyser = SimpleNamespace(detector=SimpleNamespace(detect=lambda pixels: [FACE]))

    def read() -> list[Picture]:
        with (tmp_path / "manifest.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([("file", "split", "source", "label", "note"), *rows])
        return read_pictures(tmp_path, "train", analyser, 10, np.random.default_rng(0))  # type: ignore[arg-type]

    with pytest.raises(TrainingDataError, match="sunglasses"):
        read()
    rows.append(("a.png", "train", "z", "real", "trap: sunglasses"))
    assert [(p.source, p.worn) for p in read()] == [("z", "trap: sunglasses"), ("x", None)]


# Pictures that are no photographs are made of photographs, and a probe tells them from filtered ones by tokens.

PORTRAIT = np.ascontiguousarray(skimage.data.astronaut()[40:240, 110:310])


@pytest.mark.parametrize("kind", [*KINDS, *FILTERS])
def test_a_picture_made_of_a_photograph_shows_the_same_otherwise(kind: str) -> None:
    rng, make = np.random.default_rng(3), {**KINDS, **FILTERS}[kind]
    for _ in range(3):
        picture = make(PORTRAIT, rng)
        assert (picture.shape, picture.dtype) == (PORTRAIT.shape, np.uint8)
        assert np.abs(picture.astype(int) - PORTRAIT).mean() > 2
        assert picture.std() > 3
    first, again = (make(PORTRAIT, np.random.default_rng(1)) for _ in range(2))
    assert np.array_equal(first, again)


def test_every_kind_is_made_as_often_of_other_crops(make_pack) -> None:
    pack = make_pack(pictures=96, seed=2)
    for kinds in (KINDS, FILTERS):
        found = made(pack, ("train", "calib"), 2, np.random.default_rng(1), kinds)
        assert [kind for kind, *_ in found] == list(kinds) * 2
        assert all(pixels.shape == (CROP_PX, CROP_PX, 3) for *_, pixels in found)


def test_probe_tells_the_others_from_photographs_of_every_state() -> None:
    rng = np.random.default_rng(2)
    direction = rng.normal(0, 1, 32)
    photos = rng.normal(0, 1, (400, 32)) - direction
    others = rng.normal(0, 1, (90, 32)) + direction
    weight, bias = fit_no_photo(photos.astype(np.float32), others.astype(np.float32), np.arange(400) % 3)
    assert np.mean(photos @ weight + bias < 0) > 0.97
    assert np.mean(others @ weight + bias > 0) > 0.97


def test_stored_views_are_read_as_far_as_they_are_done(tmp_path: Path) -> None:
    tokens = np.random.default_rng(0).normal(size=(6, 4, 8)).astype(np.float16)
    np.save(tmp_path / "tokens.npy", tokens)
    (tmp_path / "done.txt").write_text("5")
    (tmp_path / "views.json").write_text(json.dumps([{"row": i} for i in range(6)]))
    read, views = stored(tmp_path, 2)
    assert [view["row"] for view in views] == [0, 2, 4]
    assert np.array_equal(read, tokens[:5:2, LAYERS].reshape(3, -1).astype(np.float32))


def test_a_portrait_stays_a_photograph_after_filters_and_its_negative_and_drawing_are_none(
    photo, face_detector, base_folder
) -> None:
    expert = new_network(build_vit, tiny=False, seed=0)
    load_vit_base(expert, base_folder)
    face, rng = face_detector.detect(photo)[0], np.random.default_rng(0)
    shown = {kind: crop_for_networks(make(photo, rng), face).pixels for kind, make in FILTERS.items()}
    shown |= {kind: crop_for_networks(KINDS[kind](photo, rng), face).pixels for kind in ("negative", "pencil")}
    tokens = TorchFeaturizer(expert)(np.stack(list(shown.values())))
    found = [kind for kind, each in zip(shown, tokens, strict=True) if NO_PHOTO.says(each[None])]
    assert found == ["negative", "pencil"]
