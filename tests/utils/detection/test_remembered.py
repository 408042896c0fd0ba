"""Remembered corrections: whom they move, by how much, and that a version with them loads no network anew."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from safetensors.numpy import load_file

from utils.detection.engine import Answers
from utils.detection.pipeline import load_analyser
from utils.detection.remembered import COPY, Remembered, directions_of, read_remembered
from utils.detection.verdict import remembered_notice
from utils.errors import WeightsCorruptError
from utils.feedback.retrain import train_version
from utils.feedback.versions import rollback
from utils.metrics import sigmoid
from utils.weights import CALIBRATION_FILE, networks_of, publish_version, read_document, verify_version

D = 32
RNG = np.random.default_rng(4)


def tokens_of(*directions: np.ndarray) -> np.ndarray:
    """(T, 4, D) tokens that differ from each other at the second depth only."""
    out = np.zeros((len(directions), 4, D), np.float32)
    out[:, 1] = directions
    return out


def unit(cosine: float) -> np.ndarray:
    """A direction with this cosine to the first axis."""
    side = np.zeros(D, np.float32)
    side[0], side[1] = cosine, np.sqrt(1 - cosine**2)
    return side


def memory(pulls: list[float], reach: float = 0.5, rest: float = 0.0) -> Remembered:
    directions = np.tile(unit(1.0), (len(pulls), 1)).astype(np.float16)
    filled = np.full(len(pulls), reach, np.float32), np.array(pulls, np.float32), np.full(len(pulls), rest, np.float32)
    return Remembered(np.zeros(D, np.float32), directions, *filled)


def test_a_correction_moves_what_lies_within_its_reach_the_nearer_the_more_and_nothing_else():
    shift = memory([4.0]).shift(tokens_of(unit(1.0), unit(0.8), unit(0.6), unit(0.5), unit(0.2), unit(-1.0)))
    assert list(np.sign(shift)) == [1, 1, 1, 0, 0, 0]
    assert (np.diff(shift) <= 0).all()
    assert shift[0] == pytest.approx(4 / 1.1, rel=1e-3)


def test_corrections_that_contradict_meet_in_the_middle_and_none_adds_up():
    face = tokens_of(unit(1.0))
    assert memory([3.0] * 40).shift(face)[0] <= 3
    assert memory([3.0, -3.0]).shift(face)[0] == pytest.approx(0, abs=1e-5)
    assert memory([3.0, 0.0]).shift(face)[0] == pytest.approx(1.5, rel=0.1), "what was right holds its likes back"


def test_the_rule_adds_within_reach_only_and_never_more_than_the_strongest_asks_for():
    def ruled(logits: float, start: float = 0.0) -> np.ndarray:
        rule = {"rule_mean": np.zeros(D, np.float32), "rule": logits * unit(1.0), "rule_start": np.float32([start])}
        tokens = tokens_of(unit(1.0), unit(0.7), unit(0.4))
        tokens[:, 2] = unit(1.0), unit(-1.0), unit(1.0)
        return dataclasses.replace(memory([3.0, 0.0]), **rule).shift(tokens)

    plain, added, much = ruled(0.0), ruled(1.0), ruled(50.0, start=1.0)
    assert added[0] - plain[0] == pytest.approx(2 / 2.1, rel=1e-3), "the nearer the more"
    assert 0 > added[1] - plain[1] > -0.8, "one that looks like those of the other label goes the other way"
    assert plain[2] == added[2] == much[2] == 0
    assert much[:2].tolist() == [3, -3]
    assert np.array_equal(plain, memory([3.0, 0.0]).shift(tokens_of(unit(1.0), unit(0.7), unit(0.4))))


def test_a_copy_of_the_face_gets_what_it_lacks_still():
    near, far = (memory([1.0], rest=2.0).shift(tokens_of(unit(c)))[0] for c in (0.99, COPY - 0.01))
    assert near > 2.5
    assert far < 1


def test_nothing_is_remembered_without_corrections_and_parts_that_do_not_fit_are_refused():
    assert memory([]).shift(tokens_of(unit(1.0), unit(0.3))).tolist() == [0, 0]
    with pytest.raises(WeightsCorruptError):
        dataclasses.replace(memory([1.0]), pull=np.zeros(2, np.float32))
    with pytest.raises(WeightsCorruptError):
        dataclasses.replace(memory([1.0]), rule=np.zeros(D, np.float32))


def test_directions_have_length_one_and_no_mean():
    mean = RNG.normal(0, 1, D).astype(np.float32)
    found = directions_of(tokens_of(mean, mean + unit(1.0)), mean)
    assert not found[0].any()
    assert np.allclose(found[1], unit(1.0), atol=1e-4)


def test_the_verdict_says_that_corrections_moved_it():
    (notice,) = remembered_notice(sigmoid(-1.0), sigmoid(1.0), "faces")
    assert notice.code == "corrections_remembered"
    assert "from 27\N{NO-BREAK SPACE}% to 73\N{NO-BREAK SPACE}%" in notice.text
    assert remembered_notice(sigmoid(1.0), sigmoid(1.0), "faces") == ()


def test_a_promoted_version_takes_over_the_loaded_networks_and_a_rollback_gives_the_same_bits(lineage, settings_for):
    settings = settings_for(lineage.root)
    before = load_analyser(settings)
    learned = train_version(lineage.corrections(), lineage.root, lineage.history)
    assert learned["promoted"]
    after = load_analyser(settings, loaded=before)
    assert (after.version, after.engine is before.engine) == (learned["version"], True)
    assert after.version_sha256 != before.version_sha256
    tokens = lineage_tokens(lineage)
    answers = Answers(np.zeros((1, 4), np.float32), None, tokens)
    quality = np.zeros((1, 4), np.float32)
    scores = [a.engine.mix(answers, quality, a.remembered).logit for a in (before, after)]
    assert scores[1] != scores[0]
    rollback(lineage.root, lineage.history)
    back = load_analyser(settings, loaded=after)
    assert back.remembered is None
    assert back.engine.mix(answers, quality, back.remembered).logit == scores[0]
    fresh = load_analyser(settings)
    assert fresh.engine is not back.engine
    assert fresh.engine.mix(answers, quality, fresh.remembered).logit == scores[0]


def test_a_version_that_was_tuned_has_networks_of_its_own(lineage):
    """As those were that learned before corrections were remembered: its head or gate is another one."""
    base = lineage.base
    learned = train_version(lineage.corrections(), lineage.root, lineage.history)
    tensors = {path.stem: load_file(path) for path in base.folder.glob("*.safetensors")}
    tensors["gate"]["offset"] = tensors["gate"]["offset"] + np.float32(1)
    documents = {"calibration": read_document(base.folder / CALIBRATION_FILE)}
    card = {**base.card, "learning": {"base": "tiny", "training": {"promoted": True}}}
    tuned = publish_version(lineage.root, "tuned", tensors, {**documents, "card": card})
    assert networks_of(lineage.root, tuned).name == "tuned"
    assert read_remembered(tuned) is None
    assert networks_of(lineage.root, verify_version(lineage.root, learned["version"])).name == "tiny"
    assert networks_of(lineage.root, base).name == "tiny"


def test_a_file_that_lacks_a_part_is_refused(lineage, monkeypatch):
    learned = train_version(lineage.corrections(), lineage.root, lineage.history)
    version = verify_version(lineage.root, learned["version"])
    assert read_remembered(verify_version(lineage.root, "tiny")) is None
    held = read_remembered(version)
    assert len(held.pull) == learned["items"]
    former = {k: v for k, v in held.arrays().items() if not k.startswith("rule")}
    monkeypatch.setattr("utils.detection.remembered.read_tensors", lambda path: former)
    assert not len(read_remembered(version).rule), "a version that learned before there was a rule has none"
    monkeypatch.setattr("utils.detection.remembered.read_tensors", lambda path: {"mean": np.zeros(2)})
    with pytest.raises(WeightsCorruptError, match="does not hold"):
        read_remembered(version)


def lineage_tokens(lineage) -> np.ndarray:
    from utils.feedback.feature_set import CachedItem

    return np.asarray(CachedItem.load(lineage.corrections()[0].features).tokens, np.float32)
