"""From numbers to words: each outcome with its reasons."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.detection.calibration import Calibration, ReliabilityBin
from utils.detection.verdict import NOT_FOR_PHOTOS, TOO_SHORT, decide, deciding_face, no_face_verdict, verdict_of_all
from utils.metrics import sigmoid
from utils.types import ExpertScore, FaceReport, Notice, Outcome, Verdict

CALIBRATION = Calibration((ReliabilityBin(0, 0.5, 100, 10), ReliabilityBin(0.5, 1, 100, 90)), 0.2, 0.8, {})
NAMES = ("cnn", "resnext", "vit", "lstm")


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def expert(name: str, probability: float | None = 0.5, weight: float = 0.25, because: str | None = None) -> ExpertScore:
    there = probability is not None
    return ExpertScore(
        name=name, title=name.upper(), looks_at="it", available=there, probability=probability,
        weight=weight if there else 0.0, missing_because=because,
    )  # fmt: skip


ALL = tuple(expert(name) for name in NAMES)


def verdict(probability: float, experts: tuple[ExpertScore, ...] = ALL, **changes: Any) -> Verdict:
    return decide(logit(probability), experts, CALIBRATION, **{"threshold": 0.5, **changes})


def face(number: int, probability: float, obstacle: Notice | None = None) -> FaceReport:
    said = verdict(probability, obstacle=obstacle)
    return FaceReport(id=number, verdict=said, experts=ALL, frames=(), judged=obstacle is None)


def codes(answer: Verdict) -> list[str]:
    return [reason.code for reason in answer.reasons]


@pytest.mark.parametrize(
    ("probability", "outcome", "code"),
    [
        (0.05, Outcome.REAL, "below_band"),
        (0.199, Outcome.REAL, "below_band"),
        (0.21, Outcome.INCONCLUSIVE, "within_band"),
        (0.79, Outcome.INCONCLUSIVE, "within_band"),
        (0.81, Outcome.FAKE, "above_band"),
        (0.999, Outcome.FAKE, "above_band"),
    ],
)
def test_band_decides_and_is_the_first_reason(probability, outcome, code):
    answer = verdict(probability)
    assert (answer.outcome, codes(answer)[0]) == (outcome, code)
    assert answer.probability == pytest.approx(probability)
    assert answer.interval is not None
    assert answer.interval[0] <= answer.probability <= answer.interval[1]


def test_higher_threshold_keeps_back_the_word_fake():
    assert verdict(0.85).outcome is Outcome.FAKE
    assert verdict(0.85, threshold=0.9).outcome is Outcome.INCONCLUSIVE
    assert verdict(0.15, threshold=0.1).outcome is Outcome.INCONCLUSIVE


SMALL, CUT = Notice("small_face", "The face is only 39 pixels wide."), Notice("face_cut", "The border cuts it.")
LEFT_OUT = Notice("people_left_out", "Nine people were found; only eight were examined.")


@pytest.mark.parametrize("probability", [0.01, 0.5, 0.999])
def test_face_that_cannot_be_judged_is_inconclusive_whatever_the_networks_say(probability):
    answer = verdict(probability, obstacle=SMALL)
    assert answer.outcome is Outcome.INCONCLUSIVE
    assert answer.headline == "Not judged: too small"
    assert answer.reasons[0] == SMALL
    assert answer.probability == pytest.approx(probability)


def test_face_that_cannot_be_judged_never_decides_and_is_named():
    faces = [face(0, 0.1), face(1, 0.99, CUT), face(2, 0.01, SMALL)]
    assert deciding_face(faces).id == 0
    answer = verdict_of_all(faces, None)
    assert (answer.outcome, answer.probability) == (Outcome.REAL, pytest.approx(0.1))
    assert codes(answer)[:2] == ["below_band", "not_judged"]
    assert answer.reasons[1].text == "Nothing is said about people 2 (cut by the border), 3 (too small)."
    assert verdict_of_all(faces[:1], None) is faces[0].verdict


def test_medium_of_faces_that_cannot_be_judged_is_inconclusive_for_that_reason():
    answer = verdict_of_all([face(0, 0.99, CUT), face(1, 0.01, SMALL)], None)
    assert (answer.outcome, codes(answer)[0]) == (Outcome.INCONCLUSIVE, "face_cut")
    assert "not_judged" not in codes(answer)


def test_nothing_is_called_real_while_somebody_was_left_out():
    answer = verdict_of_all([face(0, 0.1)], LEFT_OUT)
    assert (answer.outcome, answer.headline) == (Outcome.INCONCLUSIVE, "Inconclusive")
    assert answer.reasons[0] is LEFT_OUT
    assert "below_band" not in codes(answer)
    fake = verdict_of_all([face(0, 0.99)], LEFT_OUT)
    assert (fake.outcome, codes(fake)[:2]) == (Outcome.FAKE, ["above_band", "people_left_out"])


def test_missing_expert_widens_the_band_and_is_named():
    experts = (*ALL[:2], expert("vit", None, because="Version 3 does not contain it."), ALL[3])
    assert verdict(0.84).outcome is Outcome.FAKE
    answer = verdict(0.84, experts)
    assert answer.outcome is Outcome.INCONCLUSIVE
    assert answer.reasons[-1].text == "VIT is missing: Version 3 does not contain it."
    assert verdict(0.9, experts).outcome is Outcome.FAKE


@pytest.mark.parametrize("because", [NOT_FOR_PHOTOS, TOO_SHORT])
def test_expert_without_anything_to_judge_is_not_missing(because):
    answer = verdict(0.81, (*ALL[:3], expert("lstm", None, because=because)))
    assert answer.outcome is Outcome.FAKE
    assert "expert_missing" not in codes(answer)


def test_reason_that_happens_to_speak_of_video_still_counts_as_missing():
    answer = verdict(0.81, (*ALL[:3], expert("lstm", None, because="Version video-2 does not contain it.")))
    assert answer.outcome is Outcome.INCONCLUSIVE
    assert codes(answer)[-1] == "expert_missing"


def test_weightiest_expert_and_disagreement_are_named():
    apart = (expert("cnn", 0.95, 0.2), expert("resnext", 0.3, 0.7), expert("vit", 0.5, 0.1))
    answer = verdict(0.5, apart)
    assert codes(answer) == ["within_band", "weightiest_expert", "experts_disagree"]
    assert answer.reasons[1].text.startswith("RESNEXT")
    assert "(70\N{NO-BREAK SPACE}%)" in answer.reasons[1].text
    assert "experts_disagree" not in codes(verdict(0.5))


PART = Notice("in_part", "From 1.0 to 2.0 s the frames of this person stand apart.")


@pytest.mark.parametrize(("probability", "outcome", "second"), [
    (0.15, Outcome.INCONCLUSIVE, "weightiest_expert"),
    (0.5, Outcome.INCONCLUSIVE, "within_band"),
    (0.95, Outcome.FAKE, "above_band"),
])  # fmt: skip
def test_whoever_stands_apart_in_part_is_never_real(probability, outcome, second):
    answer = verdict(probability, part=PART)
    assert (answer.outcome, codes(answer)[:2]) == (outcome, ["in_part", second])


def test_the_most_suspicious_of_many_needs_more_to_be_fake():
    assert verdict(0.85).outcome is verdict(0.85, choices=1.0).outcome is Outcome.FAKE
    assert verdict(0.85, choices=4.0).outcome is Outcome.INCONCLUSIVE
    assert verdict(0.97, choices=4.0).outcome is Outcome.FAKE
    assert verdict(0.199, choices=100.0).outcome is Outcome.REAL


def test_a_part_that_stands_out_decides_before_a_face_that_is_real():
    def report(number: int, answer: Verdict) -> FaceReport:
        return FaceReport(id=number, verdict=answer, experts=ALL, frames=())

    real, part = report(0, verdict(0.19)), report(1, verdict(0.12, part=PART))
    fake = report(2, verdict(0.9))
    assert deciding_face([real, part]) is part
    assert deciding_face([part, fake, real]) is fake
    assert deciding_face([real, report(1, verdict(0.1))]) is real
    assert deciding_face([]) is None


def test_no_face_has_no_probability():
    answer = no_face_verdict()
    assert (answer.outcome, answer.probability, answer.interval) == (Outcome.NO_FACE, None, None)
    assert codes(answer) == ["no_face"]


@given(st.floats(-1e6, 1e6))
def test_sigmoid_never_overflows(value):
    assert 0 <= sigmoid(value) <= 1
    assert sigmoid(value) == pytest.approx(1 - sigmoid(-value))
