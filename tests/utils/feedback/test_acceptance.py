"""The gate of promotion: each bound by itself, against the version in use and against the base."""

from __future__ import annotations

import dataclasses

import pytest

from utils.feedback.golden import GoldenFigures
from utils.feedback.retrain import HELP, Compared, judge_candidate

BASE = GoldenFigures(auc=0.9, ece=0.04, accuracy=0.8, slices={"source a": 0.85, "real b": 0.8}, count=300)


def judged(corrected=1, *, base=BASE, old=BASE, **changes):
    new = dataclasses.replace(BASE, **changes)
    return judge_candidate([Compared("golden", base, old, new)], corrected)


def test_an_equal_candidate_that_corrects_something_is_promoted():
    verdict = judged()
    assert (verdict.promoted, verdict.code) == (True, "promoted")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"auc": 0.8949}, "auc"),
        ({"auc": float("nan")}, "auc"),
        ({"ece": 0.0501}, "ece"),
        ({"ece": float("nan")}, "ece"),
        ({"slices": {"source a": 0.8299, "real b": 0.8}}, "slice"),
        ({"slices": {"source a": 0.85}}, "slice"),
    ],
)
def test_each_bound_rejects_and_says_why(changes, code):
    verdict = judged(**changes)
    assert (verdict.promoted, verdict.code) == (False, code)
    assert "golden" in verdict.reason
    assert verdict.reason.endswith(HELP)


@pytest.mark.parametrize("changes", [{"auc": 0.8971}, {"ece": 0.0499}, {"slices": {"source a": 0.8301, "real b": 0.8}}])
def test_within_a_bound_it_is_promoted(changes):
    assert judged(**changes).promoted


def test_without_a_correction_there_is_nothing_to_promote_for():
    assert judged(0).code == "no_correction"


def test_small_losses_do_not_add_up_because_the_base_is_compared_too():
    old = dataclasses.replace(BASE, auc=0.898)
    verdict = judged(old=old, auc=0.896)
    assert verdict.code == "auc"
    assert "the base" in verdict.reason


def test_every_golden_set_must_keep_its_bounds():
    worse = dataclasses.replace(BASE, auc=0.8)
    own = Compared("own-mine", BASE, BASE, worse)
    assert "own-mine" in judge_candidate([Compared("golden", BASE, BASE, BASE), own], 3).reason
