"""Clips become sequences: augmented copies and self-blends, of whole clips alone; short or one-sided data have none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from models.cards import EXPERT_NAMES
from tests.ensembles import build_ensemble
from utils.training.crop_set import Pack
from utils.training.features import FeatureStore, TorchFeaturizer
from utils.training.planning import clean_clips, plan_balanced
from utils.training.scoring import (
    clip_sequences,
    score_store,
    score_table,
    why_no_sequences,
)
from utils.training.views import clip_slices
from utils.types import MediaKind


@pytest.fixture(scope="module")
def ensemble():
    return build_ensemble(tiny=True).eval()


def without(pack: Pack, drop) -> Pack:
    """The pack with fewer rows; they keep their numbers."""
    return dataclasses.replace(pack, rows=tuple(r for r in pack.rows if not drop(r)))


def test_sequences_hold_copies_and_blends_with_their_labels(make_pack, ensemble, tmp_path):
    pack = make_pack(pictures=0, clips=4, frames=5)  # two real, two fake, all in train
    data, labels = clip_sequences(ensemble, pack, tmp_path / "s", 2)
    assert data.shape == (4 * 3 + 2 * 2, 5, 64)
    assert data.dtype == np.float32
    assert (int((labels == 0).sum()), int((labels == 1).sum())) == (6, 10)
    again, _ = clip_sequences(ensemble, pack, tmp_path / "s", 2)
    assert np.array_equal(data, again)


def test_clip_whose_face_was_lost_in_a_frame_is_left_out(make_pack, ensemble, tmp_path):
    pack = make_pack(pictures=0, clips=4, frames=5)
    rows = [r for r in pack.rows if not (r.file == "video-1" and r.frame == 2)]
    rows = [dataclasses.replace(r, row=i) for i, r in enumerate(rows)]
    shorter = Pack(pack.pixels[[i for i, r in enumerate(pack.rows) if not (r.file == "video-1" and r.frame == 2)]],
                   tuple(rows), ())  # fmt: skip
    data, labels = clip_sequences(ensemble, shorter, tmp_path / "s", 1)
    assert len(data) == 3 * 2 + 2
    assert int((labels == 1).sum()) == 2 + 2


@pytest.mark.parametrize(
    ("clips", "frames", "drop", "reason"),
    [
        (8, 5, lambda r: False, ""),
        (8, 5, lambda r: r.label == 1, ""),
        (8, 5, lambda r: r.label == 0, "The split train has no clip of a real person"),
        (8, 5, lambda r: r.split == "calib", "The split calib has no clip of a real person"),
        (8, 3, lambda r: False, "in at least 4 frames"),
        (0, 0, lambda r: False, "The split train has no clip"),
    ],
)
def test_reason_why_there_can_be_no_lstm(make_pack, clips, frames, drop, reason):
    found = why_no_sequences(without(make_pack(pictures=2, clips=clips, frames=frames), drop))
    assert (reason in found) if reason else found == ""


def test_scores_of_clips_are_means_over_their_frames(make_pack, ensemble, tmp_path):
    pack = make_pack(pictures=0, clips=4, frames=5)
    store = FeatureStore(tmp_path / "s", clean_clips(pack, "train"))
    store.extract(pack, TorchFeaturizer(ensemble.experts["vit"], tiny=True))
    logits, features = score_store(ensemble, store)
    assert features.shape == (20, 64)
    assert np.isnan(logits[:, EXPERT_NAMES.index("lstm")]).all()
    parts = clip_slices(pack, store.views)
    assert [p.stop - p.start for p in parts] == [5, 5, 5, 5]
    table = score_table(ensemble, pack, store)
    assert set(table.kinds) == {"video"}
    assert np.isfinite(table.logits).all()
    assert np.allclose(table.logits[2, :3], logits[10:15, :3].mean(0))
    assert table.labels.tolist() == [0, 1, 0, 1]


def test_scores_of_pictures_are_those_that_the_ensemble_gives(make_pack, ensemble, tmp_path):
    pack = make_pack(pictures=8)
    views = plan_balanced(pack.select("train", MediaKind.IMAGE), 10, seed=1)
    store = FeatureStore(tmp_path / "s", views)
    store.extract(pack, TorchFeaturizer(ensemble.experts["vit"], tiny=True))
    table = score_table(ensemble, pack, store)
    assert table.labels.tolist() == [v.label for v in views]
    images = np.array(store.load("pixels")).astype(np.float32).transpose(0, 3, 1, 2) / 255

    with torch.inference_mode():
        expected, *_ = ensemble.expert_logits(torch.from_numpy(images))
    assert np.allclose(table.logits, expected.numpy(), atol=2e-3, equal_nan=True)
