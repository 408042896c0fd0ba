"""Figures of merit against scikit-learn, SciPy and examples worked out by hand."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, confusion_matrix, roc_auc_score, roc_curve

from utils.metrics import (
    Figure,
    accuracy,
    auc,
    bootstrap,
    clopper_pearson,
    ece,
    ece_by_chance,
    eer,
    false_alarm_rate,
    min_dcf,
    miss_rate,
)
from utils.phash import perceptual_hash

samples = st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=4, max_size=60).filter(
    lambda rows: len({label for label, _ in rows}) == 2
)


def arrays(rows: list[tuple[bool, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([float(label) for label, _ in rows]), np.array([score / 20 for _, score in rows])


@given(samples)
def test_auc_is_that_of_scikit_learn_ties_included(rows):
    labels, scores = arrays(rows)
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@given(samples)
def test_rates_are_those_of_the_confusion_matrix(rows):
    labels, scores = arrays(rows)
    (tn, fp), (fn, tp) = confusion_matrix(labels, scores >= 0.4)
    assert accuracy(labels, scores, 0.4) == pytest.approx(accuracy_score(labels, scores >= 0.4))
    assert false_alarm_rate(labels, scores, 0.4) == pytest.approx(fp / (fp + tn))
    assert miss_rate(labels, scores, 0.4) == pytest.approx(fn / (fn + tp))


@given(samples)
def test_eer_is_the_nearest_point_of_the_roc_curve(rows):
    labels, scores = arrays(rows)
    alarms, hits, _ = roc_curve(labels, scores, drop_intermediate=False)
    gaps = np.abs(alarms - (1 - hits))
    candidates = (alarms + 1 - hits)[np.isclose(gaps, gaps.min())] / 2
    assert np.abs(candidates - eer(labels, scores)).min() < 1e-9


def test_eer_by_hand():
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1.0])
    assert eer(labels, np.arange(8.0)) == 0
    assert eer(labels, -np.arange(8.0)) == 1
    # one of four reals above, one of four fakes below the best threshold
    assert eer(labels, np.array([1, 2, 3, 6, 4, 7, 8, 9.0])) == pytest.approx(0.25)


def test_least_cost_by_hand():
    """Of 4 reals and 4 fakes, passing one fake costs .25 and refusing one real 1.9 / 4."""
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1.0])
    assert min_dcf(labels, np.arange(8.0)) == 0
    assert min_dcf(labels, -np.arange(8.0)) == 1
    assert min_dcf(labels, np.array([1, 2, 3, 6, 4, 7, 8, 9.0])) == pytest.approx(0.25)
    assert min_dcf(labels, np.array([1, 2, 3, 9, 4, 5, 6, 7.0])) == pytest.approx(1.9 / 4)


@pytest.mark.parametrize("figure", [auc, eer, min_dcf])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_alone_has_no_auc_and_no_eer(figure, label):
    assert math.isnan(figure(np.full(5, label), np.arange(5.0)))


def test_rates_of_an_absent_class_are_nan():
    assert math.isnan(false_alarm_rate(np.ones(3), np.zeros(3)))
    assert math.isnan(miss_rate(np.zeros(3), np.zeros(3)))


def test_ece_by_hand():
    # two bins of two: |0.15 - 0.5| and |0.85 - 1.0|, each with half of the weight
    assert ece(np.array([0, 1, 1, 1.0]), np.array([0.1, 0.2, 0.8, 0.9]), bins=2) == pytest.approx(0.25)
    assert ece(np.array([1.0, 0.0]), np.array([0.9, 0.1]), bins=10) == pytest.approx(0.1)
    assert ece(np.array([0, 1.0, 0, 1.0]), np.full(4, 0.5), bins=1) == 0


def test_ece_is_small_when_calibrated_and_large_when_overconfident():
    rng = np.random.default_rng(0)
    stated = rng.uniform(0, 1, 4000)
    labels = (rng.uniform(0, 1, 4000) < stated).astype(float)
    assert ece(labels, stated) < 0.03
    assert ece(labels, (stated > 0.5).astype(float)) == pytest.approx(0.25, abs=0.03)


def test_ece_by_chance_is_what_calibrated_probabilities_show_and_shrinks_with_their_number():
    rng = np.random.default_rng(1)
    stated = rng.uniform(0, 1, 4000)
    found = [ece((rng.uniform(0, 1, 40) < stated[:40]).astype(float), stated[:40]) for _ in range(300)]
    few, many = ece_by_chance(stated[:40]), ece_by_chance(stated)
    assert few == pytest.approx(np.mean(found), abs=0.01)
    assert many < 0.02 < few
    assert ece_by_chance(np.array([0.0, 1.0, 1.0])) == 0
    assert ece_by_chance(stated[:40]) == few


@pytest.mark.parametrize("level", [0.9, 0.95])
@pytest.mark.parametrize(("hits", "trials"), [(0, 1), (1, 1), (0, 40), (40, 40), (3, 40), (500, 1000), (1, 7)])
def test_clopper_pearson_is_that_of_scipy(hits, trials, level):
    expected = binomtest(hits, trials).proportion_ci(confidence_level=level, method="exact")
    assert clopper_pearson(hits, trials, level) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_nothing_tried_nothing_known():
    assert clopper_pearson(0, 0) == (0.0, 1.0)


def draw(seed: int, groups: int = 40) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Four pictures of each person; a person shifts the scores of all four."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(rng.permutation(groups) % 2, 4).astype(float)
    scores = labels + rng.normal(size=groups * 4) * 0.5 + np.repeat(rng.normal(size=groups), 4)
    return labels, scores, [str(i) for i in np.repeat(np.arange(groups), 4)]


def test_bootstrap_is_deterministic_and_holds_its_value():
    labels, scores, groups = draw(1)
    first, again = (bootstrap(auc, labels, scores, groups, rounds=200) for _ in range(2))
    assert first == again
    assert first.low < first.value < first.high
    assert first.value == auc(labels, scores)
    assert bootstrap(auc, labels, scores, groups, rounds=200, seed=5) != first


def test_bootstrap_interval_covers_the_true_value():
    truth = auc(*draw(99, groups=6000)[:2])
    figures = [bootstrap(auc, *draw(seed), rounds=120) for seed in range(60)]
    covered = sum(f.low <= truth <= f.high for f in figures)
    assert 50 <= covered <= 60


def test_drawing_whole_people_is_wider_than_drawing_pictures():
    labels, scores, groups = draw(3)
    people = bootstrap(auc, labels, scores, groups, rounds=300)
    pictures = bootstrap(auc, labels, scores, [str(i) for i in range(len(labels))], rounds=300)
    assert people.high - people.low > 1.3 * (pictures.high - pictures.low)


def test_bootstrap_of_a_figure_that_does_not_exist_has_no_interval():
    figure = bootstrap(auc, np.ones(4), np.arange(4.0), ["a", "a", "b", "b"], rounds=20)
    assert all(math.isnan(v) for v in (figure.value, figure.low, figure.high))


@settings(max_examples=20)
@given(st.floats(0, 1), st.floats(0, 1))
def test_figure_is_printed_with_its_interval(value, width):
    assert str(Figure(value, value - width, value)) == f"{value:.3f} [{value - width:.3f}, {value:.3f}]"


# The perceptual hash: the same picture in other bytes is found, another picture is not taken for it.


def recoded(pixels, quality):
    done, data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


@pytest.mark.parametrize("quality", [30, 60, 90])
def test_re_encoding_keeps_the_hash(photo, quality):
    assert (perceptual_hash(photo) ^ perceptual_hash(recoded(photo, quality))).bit_count() <= 4


def test_another_size_keeps_the_hash(photo):
    smaller = cv2.resize(photo, (300, 300), interpolation=cv2.INTER_AREA)
    assert (perceptual_hash(photo) ^ perceptual_hash(smaller)).bit_count() <= 4


def test_other_pictures_have_other_hashes(photo):
    for other in (photo[::-1], photo[:, ::-1], photo[:256, 100:400]):
        assert (perceptual_hash(photo) ^ perceptual_hash(np.ascontiguousarray(other))).bit_count() > 10


def test_a_picture_without_structure_gives_zero():
    assert perceptual_hash(np.full((50, 60, 3), 90, np.uint8)) == 0
