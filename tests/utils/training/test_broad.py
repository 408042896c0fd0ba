"""A training over many small sources: who counts how much, and that a head has not seen what it is asked about."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tests.utils.training.test_holdout import Tokens
from tests.utils.training.test_views import rows
from utils.metrics import auc
from utils.training.broad import cross_fitted, folds_of, head_weights, of_generator, relatives
from utils.training.crop_set import PackedCrop
from utils.training.loop import Recipe
from utils.training.views import View, plan_balanced

RECIPE = Recipe(epochs=6, batch=16, lr=0.04, average=0.5, patience=6)


def test_sources_are_drawn_by_the_root_of_their_size_and_labels_alike():
    crops = [*rows(200, 200, "large"), *rows(8, 17, "small", start=400)]
    views = plan_balanced(crops, 200, seed=1)
    counts = Counter((view.source, view.label) for view in views)
    assert 140 < counts["large", 0] + counts["large", 1] < 180
    assert abs(counts["large", 0] - counts["large", 1]) < 12
    assert abs(counts["small", 0] - counts["small", 1]) < 6
    assert max(Counter(view.row for view in views).values()) <= 6
    assert all(view.processed and not view.clean for view in views)


def test_a_tiny_source_gives_no_crop_more_often_than_allowed():
    views = plan_balanced([*rows(2, 0, "tiny"), *rows(100, 100, "large", start=2)], 400, seed=2, most=3)
    assert sum(view.source == "tiny" for view in views) == 6


def test_blends_are_made_of_real_crops_alone():
    views = plan_balanced(rows(20, 20), 30, seed=3, blended=True)
    assert {(view.label, view.generator, view.blended, view.row < 20) for view in views} == {
        (1, "self-blend", True, True)
    }


def test_real_and_fake_count_alike_and_clean_pictures_by_the_root_of_their_source():
    crops = [*rows(40, 10, "a"), *rows(10, 0, "b", start=50)]
    views = [View(crop.row, crop.label, crop.source, crop.generator, 0, clean=True) for crop in crops]
    views += [View(crop.row, crop.label, crop.source, crop.generator, 9, processed=True) for crop in crops]
    weights = head_weights(views, crops)
    labels = np.array([view.label for view in views])
    assert weights.sum() == pytest.approx(len(views), rel=1e-4)
    assert weights[labels == 0].sum() == pytest.approx(weights[labels == 1].sum(), rel=1e-4)
    clean = {s: weights[[v.clean and v.source == s and not v.label for v in views]].sum() for s in "ab"}
    assert clean["a"] / clean["b"] == pytest.approx(2, rel=1e-3)


def test_relatives_share_a_fold():
    assert relatives("video:resyncer_page") == relatives("frames_resyncer_back") == "resyncer"
    fold = folds_of(["a"] * 9 + ["b"] * 5 + ["c"] * 2 + ["d"], 2)
    assert fold == {"a": 0, "b": 1, "c": 1, "d": 0}


def test_a_source_that_lies_the_other_way_is_wrong_by_the_head_that_has_not_seen_it(tmp_path, one_thread):
    packed: list[PackedCrop] = []
    kinds = {"one": (160, 1.0, ("a",)), "two": (160, 1.0, ("a",)), "odd": (60, -1.0, ("b",))}
    train, calib, held = (Tokens(seed, kinds, packed) for seed in range(3))
    for store in (train, calib, held):  # moved away, so that a head that knows it can tell it
        store.tokens[[view.source == "odd" for view in store.views], :, 24:] += 3
    found = cross_fitted(train, calib, {"held": held}, packed, RECIPE, tmp_path, folds=3, tiny=True)
    logits, labels = found.of_own("held"), held.labels()
    odd = np.array([view.source == "odd" for view in held.views])
    assert auc(labels[~odd], logits[~odd]) > 0.65
    assert auc(labels[odd], logits[odd]) < 0.45
    by_generator = cross_fitted(
        train, calib, {"held": held}, packed, RECIPE, tmp_path, folds=2, name_of=of_generator, tiny=True
    )
    assert set(by_generator.fold) == {"a", "b"}
    assert np.isnan(by_generator.of_own("held"))[labels == 0].all(), "a real picture is of no generator"
