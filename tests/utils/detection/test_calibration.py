"""The promises of the calibration hold on the data they were made from, and damaged ones are refused."""

from __future__ import annotations

import copy
import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.detection.calibration import (
    FALSE_ALARM_PROMISE,
    MIN_SOURCE,
    MISS_PROMISE,
    Calibration,
    ReliabilityBin,
    calibration_from_dict,
    fit_calibration,
)
from utils.errors import WeightsCorruptError
from utils.metrics import clopper_pearson

probability = st.floats(0.001, 0.999)


def held_out(seed: int, items: int = 600, hardness: float = 1.5) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Labels, probabilities and sources; the source `hard` has reals that look more fake."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, items).astype(float)
    sources = rng.choice(["easy", "hard", "rare"], items, p=[0.6, 0.35, 0.05])
    shift = np.where((sources == "hard") & (labels == 0), hardness, 0.0)
    logits = 3 * (2 * labels - 1) + shift + rng.normal(size=items) * 2
    return labels, 1 / (1 + np.exp(-logits)), [str(s) for s in sources]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("hardness", [0.0, 1.5, 6.0])
def test_promises_hold_on_the_data_they_were_fitted_on(seed, hardness):
    labels, probabilities, sources = held_out(seed, hardness=hardness)
    fitted = fit_calibration(labels, probabilities, sources, {})
    low, high = fitted.band(0.5, 0)
    missed = int((probabilities[labels == 1] <= low).sum())
    assert clopper_pearson(missed, int(labels.sum()))[1] <= MISS_PROMISE
    for chosen in ("easy", "hard", None):
        real = (labels == 0) & (np.array([s == chosen for s in sources]) | (chosen is None))
        alarms = int((probabilities[real] >= high).sum())
        assert clopper_pearson(alarms, int(real.sum()))[1] <= FALSE_ALARM_PROMISE, chosen


def test_band_is_no_wider_than_the_promise_needs():
    labels, probabilities, sources = held_out(1)
    fitted = fit_calibration(labels, probabilities, sources, {})
    assert 0.5 < fitted.fake_above < 1
    hard = probabilities[(labels == 0) & (np.array(sources) == "hard")]
    one_more = int((hard >= fitted.fake_above).sum()) + 1
    assert clopper_pearson(one_more, len(hard))[1] > FALSE_ALARM_PROMISE


def test_easy_data_leave_no_band():
    labels = np.repeat([0.0, 1.0], 100)
    fitted = fit_calibration(labels, np.where(labels == 1, 0.99, 0.01), ["one"] * 200, {})
    assert (fitted.real_below, fitted.fake_above) == (0.5, 0.5)


def test_too_few_items_promise_nothing_but_near_certainty():
    fitted = fit_calibration(np.array([0.0, 1.0] * 10), np.array([0.01, 0.99] * 10), ["one"] * 20, {})
    assert fitted.fake_above > 0.99
    assert fitted.real_below < 0.01


def test_a_source_too_small_to_bound_the_rate_does_not_close_the_band():
    assert clopper_pearson(0, MIN_SOURCE)[1] <= FALSE_ALARM_PROMISE < clopper_pearson(0, MIN_SOURCE - 1)[1]
    labels = np.repeat([0.0, 1.0], 200)
    sources = ["small"] * (MIN_SOURCE - 1) + ["large"] * (400 - MIN_SOURCE + 1)
    fitted = fit_calibration(labels, np.where(labels == 1, 0.99, 0.01), sources, {})
    assert fitted.fake_above == 0.5


def test_reals_that_are_surely_called_fake_leave_no_room_for_fake():
    """The promise also holds where a fifth of the reals lies above every cap."""
    labels = np.repeat([0.0, 1.0], 100)
    probabilities = np.where(labels == 1, 0.9, 0.1)
    probabilities[:20] = 0.9995
    fitted = fit_calibration(labels, probabilities, ["one"] * 200, {})
    assert (probabilities[labels == 0] >= fitted.band(0.5, 0)[1]).sum() == 0


@given(st.lists(st.tuples(st.booleans(), probability), min_size=1, max_size=200))
def test_bins_cover_everything_and_count_every_item(rows):
    labels = np.array([float(label) for label, _ in rows])
    probabilities = np.array([p for _, p in rows])
    fitted = fit_calibration(labels, probabilities, ["s"] * len(rows), {})
    assert sum(b.count for b in fitted.bins) == len(rows)
    assert sum(b.fakes for b in fitted.bins) == labels.sum()
    assert [b.high for b in fitted.bins[:-1]] == [b.low for b in fitted.bins[1:]]
    for p in (0.0, 0.25, 1.0, *probabilities):
        low, high = fitted.interval(float(p))
        assert 0 <= low <= p <= high <= 1


def test_interval_is_that_of_the_bin():
    fitted = Calibration((ReliabilityBin(0, 0.4, 50, 5), ReliabilityBin(0.4, 1, 80, 70)), 0.2, 0.8, {})
    assert fitted.interval(0.1) == clopper_pearson(5, 50)
    assert fitted.interval(0.9) == clopper_pearson(70, 80)
    low, high = fitted.interval(0.01)
    assert (low, high) == (0.01, clopper_pearson(5, 50)[1])
    assert fitted.interval(0.4) == (clopper_pearson(5, 50)[0], 0.4), "an edge belongs to the bin below"


@pytest.mark.parametrize(
    ("threshold", "low", "high"), [(0.5, 0.2, 0.8), (0.9, 0.2, 0.9), (0.1, 0.1, 0.8), (0.05, 0.05, 0.8)]
)
def test_users_threshold_moves_the_band_outward_only(threshold, low, high):
    fitted = Calibration((ReliabilityBin(0, 1, 10, 5),), 0.2, 0.8, {})
    assert fitted.band(threshold, 0) == pytest.approx((low, high))


@given(probability, st.floats(0.0, 0.5), st.floats(0.5, 1.0))
def test_each_missing_expert_widens_the_band(threshold, real_below, fake_above):
    fitted = Calibration((ReliabilityBin(0, 1, 10, 5),), real_below, fake_above, {})
    bands = [fitted.band(threshold, missing) for missing in range(4)]
    for (low, high), (next_low, next_high) in pairwise(bands):
        assert 0 <= next_low < low <= high < next_high <= 1


DOCUMENT = fit_calibration(*held_out(0), {"ece": 0.03}).to_dict()


def test_written_and_read_it_is_the_same():
    fitted = fit_calibration(*held_out(0), {"ece": 0.03})
    assert calibration_from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted


def damage(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(DOCUMENT), **changes}


def with_bin(index: int, **changes: Any) -> dict[str, Any]:
    document = json.loads(json.dumps(DOCUMENT))
    document["bins"][index].update(changes)
    return document


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        *({k: v for k, v in DOCUMENT.items() if k != gone} for gone in DOCUMENT),
        damage(bins=[]),
        damage(bins=None),
        damage(bins=["bin"]),
        damage(bins=DOCUMENT["bins"][1:]),
        damage(bins=DOCUMENT["bins"][:-1]),
        damage(bins=DOCUMENT["bins"][:3] + DOCUMENT["bins"][4:]),
        damage(real_below="low"),
        damage(real_below=0.9, fake_above=0.6),
        damage(fake_above=1.5),
        damage(fake_above=float("nan")),
        damage(figures=[1]),
        damage(figures={"ece": "small"}),
        with_bin(2, fakes=10**6),
        with_bin(2, fakes=-1),
        with_bin(2, count="many"),
        with_bin(2, high=2.0),
        with_bin(2, low=float("nan")),
        with_bin(2, colour="red"),
    ],
)
def test_damaged_documents_are_refused(document):
    with pytest.raises(WeightsCorruptError, match=r"calibration\.json"):
        calibration_from_dict(document)


def test_intervals_are_of_what_is_as_it_comes_and_the_band_of_everything():
    rng = np.random.default_rng(3)
    labels = (rng.random(600) < 0.5).astype(np.float64)
    hard = np.arange(600) % 2 == 0
    told = np.where(labels > 0.5, 0.9, 0.1)
    told = np.where(hard & (rng.random(600) < 0.3), 1 - told, told) + rng.normal(0, 0.005, 600)
    every = fit_calibration(labels, told, ["one"] * 600, {})
    apart = fit_calibration(labels, told, ["one"] * 600, {}, as_come=~hard)
    assert sum(b.count for b in apart.bins) == 300
    assert (apart.real_below, apart.fake_above) == (every.real_below, every.fake_above)
    assert apart.interval(0.9)[0] > 0.85 > every.interval(0.9)[0]


def test_band_of_strangers_keeps_the_means_over_sources():
    rng = np.random.default_rng(0)
    names = np.repeat([f"world {i}" for i in range(20)], 50)
    labels = np.repeat([0.0, 1.0], 1000)
    probabilities = np.where(labels > 0.5, rng.beta(4, 2, 2000), rng.beta(2, 4, 2000))
    found = fit_calibration(labels, probabilities, [*names.tolist(), *["made"] * 1000], {}, strangers=True)
    alarms = [(probabilities[:1000][names == name] >= found.fake_above).mean() for name in np.unique(names)]
    assert np.mean(alarms) <= 0.01
    assert max(alarms) <= 0.06
    assert 0.68 <= (probabilities[:1000] <= found.real_below).mean() < 0.70
