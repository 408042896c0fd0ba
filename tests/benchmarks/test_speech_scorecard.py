"""The page of the network of speech names every family and world, and what tells the classes apart without it."""

from __future__ import annotations

from benchmarks.speech_scorecard import scorecard, share
from tests.utils.evaluation.test_speech_figures import scores


def test_the_page_names_every_family_and_world():
    text = scorecard(scores(), {"level": 0.61})
    for name in ("| family 0 | fake | no | 15 |", "| family 3 | fake | yes |", "| world 1 | real |"):
        assert name in text
    assert "| AUC of single facts alone | level 0.61 |" in text
    assert "| left-out worlds called fake, % |" in text


def test_families_of_a_few_stand_together():
    few = scores(count=40)  # five of each
    text = scorecard(few, {})
    assert "| others | fake | no | 10 |" in text
    assert "family 0 " not in text.split("recordings")[-1]


def test_shares_have_exact_intervals():
    assert share([True] + [False] * 19) == "5.0 [0.1, 24.9] of 20"
    assert share([]) == "0.0 [0.0, 100.0] of 0"
