"""Pictures that are no photographs are made of photographs, and a probe tells them from filtered ones by tokens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from benchmarks.filtered_photos import FILTERS
from benchmarks.fit_no_photo import LAYERS, fit, made, stored
from benchmarks.no_photos import KINDS
from models.vision_transformer import build_vit
from utils.detection.probes import NO_PHOTO
from utils.faces.crops import CROP_PX, crop_for_networks
from utils.networks import load_vit_base
from utils.training.experts import new_network
from utils.training.features import TorchFeaturizer

FACE = np.ascontiguousarray(skimage.data.astronaut()[40:240, 110:310])


@pytest.mark.parametrize("kind", [*KINDS, *FILTERS])
def test_a_picture_made_of_a_photograph_shows_the_same_otherwise(kind: str) -> None:
    rng, make = np.random.default_rng(3), {**KINDS, **FILTERS}[kind]
    for _ in range(3):
        picture = make(FACE, rng)
        assert (picture.shape, picture.dtype) == (FACE.shape, np.uint8)
        assert np.abs(picture.astype(int) - FACE).mean() > 2
        assert picture.std() > 3
    first, again = (make(FACE, np.random.default_rng(1)) for _ in range(2))
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
    weight, bias = fit(photos.astype(np.float32), others.astype(np.float32), np.arange(400) % 3)
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
