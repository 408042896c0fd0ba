"""Self-blends change the face and nothing else, and their surroundings do not give them away."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from utils.metrics import auc
from utils.training.augment import augment
from utils.training.blending import BLEND_RATIOS, _mismatch, blend_mask, face_hull, self_blend


@pytest.fixture(scope="module")
def face(make_pack):
    pack = make_pack(pictures=1)
    return np.ascontiguousarray(pack.pixels[0]), pack.rows[0].marks()


@pytest.mark.parametrize("seed", range(15))
def test_only_the_masked_part_changes(face, seed):
    pixels, marks = face
    mask = blend_mask(pixels.shape[:2], marks, np.random.default_rng(seed))
    blended = self_blend(pixels, marks, np.random.default_rng(seed))
    assert np.array_equal(blended[mask == 0], pixels[mask == 0])
    assert (blended[mask > 0] != pixels[mask > 0]).any()
    assert blended.dtype == np.uint8


def test_same_seed_same_blend_other_seed_another(face):
    pixels, marks = face
    made = [self_blend(pixels, marks, np.random.default_rng(seed)).tobytes() for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]


@pytest.mark.parametrize("seed", range(10))
def test_mask_is_soft_and_lies_on_the_face(face, seed):
    pixels, marks = face
    mask = blend_mask(pixels.shape[:2], marks, np.random.default_rng(seed))
    assert mask.dtype == np.float32
    assert mask.min() >= 0
    assert mask.max() <= 1
    assert 0.02 < (mask > 0.05).mean() < 0.7
    assert len(np.unique(mask)) > 50
    edge = np.concatenate([mask[:4].ravel(), mask[-4:].ravel(), mask[:, :4].ravel(), mask[:, -4:].ravel()])
    assert edge.mean() < 0.05


def test_every_blend_ratio_occurs_and_no_other(face):
    pixels, marks = face
    peaks = {round(float(blend_mask(pixels.shape[:2], marks, np.random.default_rng(s)).max()), 2) for s in range(60)}
    whole = {p for p in peaks if any(abs(p - ratio) < 0.03 for ratio in BLEND_RATIOS)}
    assert {round(p / 0.25) for p in whole} == {1, 2, 3, 4}
    assert max(peaks) <= 1


def test_colours_can_stay_while_the_mask_moves(face):
    pixels, marks = face
    made = [self_blend(pixels, marks, np.random.default_rng(3), np.random.default_rng(seed)) for seed in range(4)]
    assert len({m.tobytes() for m in made}) == 4
    whole = self_blend(pixels, marks, np.random.default_rng(3), np.random.default_rng(0))
    assert np.array_equal(whole, made[0])


def test_copies_differ_in_colour_resolution_and_sharpness_each_and_together(face):
    pixels = face[0].astype(np.float32)
    grey = cv2.cvtColor(face[0], cv2.COLOR_RGB2GRAY)
    detail = cv2.Laplacian(grey, cv2.CV_32F).var()
    seen = []
    for seed in range(60):
        copy = _mismatch(pixels, np.random.default_rng(seed))
        of_copy = cv2.cvtColor(np.clip(copy, 0, 255).astype(np.uint8), cv2.COLOR_RGB2GRAY)
        gain = cv2.Laplacian(of_copy, cv2.CV_32F).var() / detail
        seen.append((abs(copy.mean((0, 1)) - pixels.mean((0, 1))).max() > 2, gain < 0.7, gain > 1.35))
    coloured, softer, sharper = (np.array(column) for column in zip(*seen, strict=True))
    assert 0.5 < coloured.mean() < 0.95
    assert softer.any()
    assert sharper.any()
    assert (softer & ~coloured).any()
    assert (softer & coloured).any()


def test_hull_surrounds_the_landmarks(face):
    hull = face_hull(face[1])
    assert hull.shape == (12, 2)
    assert (hull.min(0) < face[1].min(0)).all()
    assert (hull.max(0) > face[1].max(0)).all()


def test_landmarks_in_one_point_are_refused():
    with pytest.raises(ValueError, match="plane"):
        self_blend(np.zeros((64, 64, 3), np.uint8), np.zeros((5, 2), np.float32), np.random.default_rng(0))


def ring_features(view, width: int = 8) -> np.ndarray:
    """Mean and spread of 64 pieces of the outermost pixels: all that a probe of the surroundings may see."""
    rim = np.concatenate(
        [view[:width], view[-width:], view[:, :width].swapaxes(0, 1), view[:, -width:].swapaxes(0, 1)], 1
    )
    pieces = np.array_split(rim.astype(np.float64), 64, axis=1)
    return np.concatenate([np.concatenate([p.mean((0, 1)), p.std((0, 1))]) for p in pieces])


def probe(pack, make_fake) -> float:
    """AUC of a logistic regression on the rims of augmented crops, half of them turned into fakes."""
    features, labels = [], []
    for row in (r for r in pack.rows if r.label == 0):
        pixels = np.ascontiguousarray(pack.pixels[row.row])
        if len(labels) % 2:
            pixels = make_fake(pixels, row)
        features.append(ring_features(augment(pixels, row.face_box(), np.random.default_rng([5, row.row]))))
        labels.append(float(len(labels) % 2))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=500))
    scores = cross_val_predict(model, np.stack(features), labels, cv=5, method="decision_function")
    return auc(np.array(labels), scores)


def test_surroundings_do_not_tell_a_self_blend_from_a_real_crop(make_pack):
    pack = make_pack(pictures=440, seed=11)
    hidden = probe(pack, lambda pixels, row: self_blend(pixels, row.marks(), np.random.default_rng(row.row)))
    assert 0.40 <= hidden <= 0.60


def test_the_probe_itself_sees_changed_surroundings(make_pack):
    pack = make_pack(pictures=200, seed=11)
    assert probe(pack, lambda pixels, row: cv2.GaussianBlur(pixels, (0, 0), 3)) > 0.8
