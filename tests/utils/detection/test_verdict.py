"""From numbers to words: each outcome with its reasons."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.detection.calibration import Calibration, ReliabilityBin
from utils.detection.face_report import COVER, NO_PHOTO, Probe
from utils.detection.verdict import NOT_FOR_PHOTOS, TOO_SHORT, decide, deciding_face, fuse, likely, verdict_of_all
from utils.errors import WeightsCorruptError, WeightsMissingError
from utils.metrics import sigmoid
from utils.tensors import read_tensors
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


@pytest.mark.parametrize(("probability", "said"), [(0.9996, "> 99 %"), (0.004, "< 1 %"), (0.99, "99 %"), (0.5, "50 %")])
def test_no_sentence_claims_certainty(probability: float, said: str) -> None:
    assert likely(probability).replace("\N{NO-BREAK SPACE}", " ") == said


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
    answer = verdict_of_all((), None)
    assert (answer.outcome, answer.probability, answer.interval) == (Outcome.NO_FACE, None, None)
    assert codes(answer) == ["no_face"]


@given(st.floats(-1e6, 1e6))
def test_sigmoid_never_overflows(value):
    assert 0 <= sigmoid(value) <= 1
    assert sigmoid(value) == pytest.approx(1 - sigmoid(-value))


# One line for faces and voice: neither hides the other, and its errors follow from the parts'.

FACES = (Outcome.FAKE, Outcome.REAL, Outcome.INCONCLUSIVE, Outcome.NO_FACE)
VOICES = (Outcome.FAKE, Outcome.REAL, Outcome.INCONCLUSIVE, Outcome.NO_SPEECH)


def part(outcome: Outcome) -> Verdict:
    p = 0.5 if outcome.judged else None
    return Verdict(outcome, "x", p, None if p is None else (0.4, 0.6), (Notice("x", "x"),))


@pytest.mark.parametrize(
    ("faces", "voice", "outcome", "code"),
    [
        ("real", "fake", "fake", "fake_voice"),
        ("inconclusive", "fake", "fake", "fake_voice"),
        ("fake", "real", "fake", "fake_faces"),
        ("fake", "fake", "fake", "both_fake"),
        ("real", "real", "real", "both_real"),
        ("inconclusive", "inconclusive", "inconclusive", "both_inconclusive"),
        ("real", "inconclusive", "inconclusive", "one_undecided"),
        ("inconclusive", "real", "inconclusive", "one_undecided"),
        ("real", "no_speech", "real", "faces_only"),
        ("no_face", "fake", "fake", "voice_only"),
        ("no_face", "real", "real", "voice_only"),
    ],
)
def test_what_the_parts_say_together(faces: str, voice: str, outcome: str, code: str) -> None:
    said = fuse(part(Outcome(faces)), part(Outcome(voice)))
    assert said is not None
    assert (said.outcome, [reason.code for reason in said.reasons]) == (Outcome(outcome), [code])


def test_both_parts_are_named_in_every_case() -> None:
    headlines = {pair: fuse(*map(part, pair)) for pair in itertools.product(FACES, VOICES)}
    assert headlines.pop((Outcome.NO_FACE, Outcome.NO_SPEECH)) is None
    assert len({said.headline for said in headlines.values() if said is not None}) == len(headlines)
    assert all("face" in said.headline.lower() and ("voice" in said.headline or "speech" in said.headline)
               for said in headlines.values() if said is not None)  # fmt: skip


def test_false_alarms_are_no_more_than_those_of_the_parts_together() -> None:
    """However the parts' errors depend on each other: here alike, opposite and independent."""
    rng = np.random.default_rng(0)
    for link in (1.0, -1.0, 0.0):
        first = rng.uniform(size=4000)
        second = first if link == 1 else 1 - first if link == -1 else rng.uniform(size=4000)
        faces = [Outcome.FAKE if u < 0.05 else Outcome.REAL for u in first]
        voices = [Outcome.FAKE if u < 0.04 else Outcome.REAL for u in second]
        together = [fuse(part(a), part(b)) for a, b in zip(faces, voices, strict=True)]
        alarms = sum(said is not None and said.outcome is Outcome.FAKE for said in together)
        assert alarms <= faces.count(Outcome.FAKE) + voices.count(Outcome.FAKE)
        assert alarms >= max(faces.count(Outcome.FAKE), voices.count(Outcome.FAKE)), "neither hides the other"


# What the probes make of tokens, and what a likely cover or no photograph means for a verdict.

PROBES = pytest.mark.parametrize("probe", [COVER, NO_PHOTO], ids=lambda probe: probe.notice.code)


@PROBES
def test_probe_answers_as_a_linear_rule_of_the_tokens(probe: Probe) -> None:
    held = read_tensors(probe.path)
    weight, bias = held["weight"], float(held["bias"][0])
    towards = weight / float((weight**2).sum())
    at_zero = -bias * towards
    assert probe.probability(at_zero[None]) == pytest.approx(0.5, abs=1e-3)
    assert probe.says((at_zero + 5 * towards)[None]) == probe.notice
    assert probe.says((at_zero - 5 * towards)[None]) is None
    assert probe.probability((at_zero - 5 * towards)[None]) < 0.01
    both = np.stack([at_zero + 5 * towards, at_zero - 5 * towards])
    assert probe.probability(both) == pytest.approx(0.5, abs=0.01), "the mean over a person's crops"


@PROBES
def test_a_probe_with_other_bytes_is_refused(probe: Probe, tmp_path: Path) -> None:
    data = bytearray(probe.path.read_bytes())
    data[-1] ^= 1
    other = dataclasses.replace(probe, path=tmp_path / "other.safetensors")
    with pytest.raises(WeightsMissingError):
        other.probability(None)
    other.path.write_bytes(data)
    with pytest.raises(WeightsCorruptError):
        other.probability(None)


@pytest.mark.parametrize("tokens", [None, np.zeros((1, 4, 64), np.float32)])
def test_without_the_tokens_of_the_real_network_nothing_is_said(tokens):
    assert COVER.probability(tokens) == NO_PHOTO.probability(tokens) == 0.0


@pytest.mark.parametrize("probability", [0.01, 0.5, 0.999])
def test_likely_covered_face_has_that_reason_and_is_never_called_fake(probability):
    answer = verdict(probability, cover=COVER.notice)
    plain = verdict(probability)
    assert COVER.notice in answer.reasons
    assert answer.probability == plain.probability
    assert answer.outcome is (Outcome.INCONCLUSIVE if plain.outcome is Outcome.FAKE else plain.outcome)


@pytest.mark.parametrize("probability", [0.01, 0.999])
def test_what_is_no_photograph_is_not_judged_for_that_reason(probability):
    answer = verdict(probability, obstacle=NO_PHOTO.notice)
    assert (answer.outcome, answer.headline) == (Outcome.INCONCLUSIVE, "Not judged: no photograph")
    assert answer.reasons[0] == NO_PHOTO.notice
