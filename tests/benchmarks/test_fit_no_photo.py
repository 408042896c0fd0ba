"""Pictures that are no photographs are made of photographs, and a probe of them is fitted from tokens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from benchmarks.fit_no_photo import LAYERS, fit, made, stored
from benchmarks.no_photos import KINDS
from utils.faces.crops import CROP_PX

FACE = np.ascontiguousarray(skimage.data.astronaut()[40:240, 110:310])


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_that_is_no_photograph_shows_the_same_otherwise(kind: str) -> None:
    rng = np.random.default_rng(3)
    for _ in range(3):
        picture = KINDS[kind](FACE, rng)
        assert (picture.shape, picture.dtype) == (FACE.shape, np.uint8)
        assert np.abs(picture.astype(int) - FACE).mean() > 3
        assert picture.std() > 3
    first, again = (KINDS[kind](FACE, np.random.default_rng(1)) for _ in range(2))
    assert np.array_equal(first, again)


def test_every_kind_is_made_as_often_of_other_crops(make_pack) -> None:
    pack = make_pack(pictures=96, seed=2)
    found = made(pack, ("train", "calib"), 2, np.random.default_rng(1))
    assert [kind for kind, *_ in found] == list(KINDS) * 2
    assert all(pixels.shape == (CROP_PX, CROP_PX, 3) for *_, pixels in found)


def test_probe_tells_the_others_from_photographs_as_they_come_and_processed() -> None:
    rng = np.random.default_rng(2)
    direction = rng.normal(0, 1, 32)
    photos = rng.normal(0, 1, (400, 32)) - direction
    others = rng.normal(0, 1, (90, 32)) + direction
    weight, bias = fit(photos.astype(np.float32), others.astype(np.float32), np.arange(400) < 200)
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
