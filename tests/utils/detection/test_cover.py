"""What the probe of covers makes of tokens, and what a likely cover means for a verdict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.utils.detection.test_verdict import verdict
from utils.detection import cover
from utils.detection.cover import LIKELY, NOTICE, PROBE, cover_probability, read_probe
from utils.errors import WeightsCorruptError, WeightsMissingError
from utils.tensors import read_tensors
from utils.types import Outcome


def test_probe_answers_as_a_linear_rule_of_the_tokens():
    probe = read_tensors(PROBE)
    weight, bias = probe["weight"], float(probe["bias"][0])
    towards = weight / float((weight**2).sum())
    at_zero = -bias * towards
    assert cover_probability(at_zero[None]) == pytest.approx(0.5, abs=1e-3)
    assert cover_probability((at_zero + 5 * towards)[None]) > LIKELY
    assert cover_probability((at_zero - 5 * towards)[None]) < 0.01
    both = np.stack([at_zero + 5 * towards, at_zero - 5 * towards])
    assert cover_probability(both) == pytest.approx(0.5, abs=0.01), "the mean over a person's crops"


def test_a_probe_with_other_bytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(PROBE.read_bytes())
    data[-1] ^= 1
    other = tmp_path / PROBE.name
    other.write_bytes(data)
    monkeypatch.setattr(cover, "PROBE", other)
    read_probe.cache_clear()
    with pytest.raises(WeightsCorruptError):
        read_probe()
    other.unlink()
    with pytest.raises(WeightsMissingError):
        read_probe()


@pytest.mark.parametrize("tokens", [None, np.zeros((1, 4, 64), np.float32)])
def test_without_the_tokens_of_the_real_network_nothing_is_said(tokens):
    assert cover_probability(tokens) == 0.0


@pytest.mark.parametrize("probability", [0.01, 0.5, 0.999])
def test_likely_covered_face_has_that_reason_and_is_never_called_fake(probability):
    answer = verdict(probability, cover=NOTICE)
    plain = verdict(probability)
    assert NOTICE in answer.reasons
    assert answer.probability == plain.probability
    assert answer.outcome is (Outcome.INCONCLUSIVE if plain.outcome is Outcome.FAKE else plain.outcome)
