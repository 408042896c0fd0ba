"""What the probes make of tokens, and what a likely cover or no photograph means for a verdict."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.utils.detection.test_verdict import verdict
from utils.detection.probes import COVER, NO_PHOTO, Probe
from utils.errors import WeightsCorruptError, WeightsMissingError
from utils.tensors import read_tensors
from utils.types import Outcome

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
