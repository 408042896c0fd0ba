"""Covers are drawn over the face, and a probe of covers is fitted from labelled views and held at its threshold."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import skimage.data
from PIL import Image

from benchmarks.covers import DRAWN, Canvas, taken_over
from benchmarks.fit_cover import WORN, Picture, Row, fit, left_out, read_pictures, shares, views
from utils.errors import TrainingDataError
from utils.faces.crops import crop_for_networks
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
