"""What versions say of accepted items: right, lost, or not to be asked."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from models.gating import Gate
from utils.config import Settings
from utils.errors import WeightsCorruptError
from utils.feedback.cached_judge import VIT_COLUMN, check_items, head_logits, load_parts, logits_of
from utils.feedback.feature_set import CachedItem, pseudonym
from utils.feedback.golden import GoldenFigures, load_lineage
from utils.feedback.history import read_history
from utils.feedback.remember import remember
from utils.feedback.retrain import HELP, Compared, judge_candidate, train_version
from utils.networks import load_ensemble
from utils.tensors import load_into, read_tensors
from utils.weights import GATE_FILE, current_name, verify_version, weights_root


def outcomes(lineage, items, version):
    return [said.outcome for said in check_items(items, lineage.root, version)]


def test_what_was_learned_holds_in_the_version_that_learned_it(lineage):
    items = lineage.corrections()
    label = ("real", "fake")[items[0].label]
    before = outcomes(lineage, items, "tiny")
    learned = train_version(items, lineage.root, lineage.history)
    assert learned["promoted"]
    after = outcomes(lineage, items, learned["version"])
    assert before.count(label) < after.count(label)
    assert learned["lost"] == []


def test_features_of_other_networks_and_damaged_ones_are_not_asked_about(lineage):
    items = lineage.corrections(3)
    dataclasses.replace(CachedItem.load(items[0].features), experts="0" * 64).save(items[0].features)
    items[1].features.write_bytes(b"torn")
    said = check_items(items, lineage.root, "tiny")
    assert [(each.outcome == "", each.probability is None) for each in said] == [
        (True, True),
        (True, True),
        (False, False),
    ]
    assert check_items([], lineage.root, "tiny") == []


def test_a_candidate_that_loses_a_correction_says_so_in_its_line(lineage, monkeypatch):
    def everything_is_fake(*given):
        done = remember(*given)
        whole = dataclasses.replace(
            done.remembered, reach=np.full_like(done.remembered.reach, -1), pull=np.full_like(done.remembered.pull, 50)
        )
        return dataclasses.replace(done, remembered=whole)

    known = [lineage.item(100 + n, 0, strange=False) for n in range(40)]
    said = check_items(known, lineage.root, "tiny")
    held = {item.media_sha256 for item, each in zip(known, said, strict=True) if each.outcome == "real"}
    assert 0 < len(held) < len(known)
    monkeypatch.setattr("utils.feedback.retrain.remember", everything_is_fake)
    outcome = train_version(known, lineage.root, lineage.history)
    (line,) = read_history(lineage.history).entries
    assert set(outcome["lost"]) == {pseudonym(sha256) for sha256 in held}
    assert line["lost"] == outcome["lost"]


# What judges cached features is the ViT's head and the gate as the networks compute them.


def test_head_and_gate_agree_with_the_networks():
    root = weights_root(Settings())
    version = verify_version(root, current_name(root))
    replay = load_lineage(version).replay.select(np.arange(60))
    ensemble, _ = load_ensemble(root, version)
    gate = Gate(experts=4, quality=4)
    load_into(gate, read_tensors(version.folder / GATE_FILE), what="the gate")
    tokens = np.asarray(replay.tokens, np.float32)
    with torch.inference_mode():
        wanted = ensemble.experts["vit"].head(torch.from_numpy(tokens)).logit.numpy()
        frames = np.add.reduceat(wanted, replay.starts[:-1]) / np.diff(replay.starts)
        logits = replay.logits.copy()
        logits[:, VIT_COLUMN] = frames
        mixed = gate(torch.from_numpy(logits), torch.from_numpy(replay.quality)).logit.numpy()
    parts = load_parts(version)
    assert np.abs(head_logits(parts.head, tokens) - wanted).max() < 1e-4
    assert np.abs(logits_of(parts, replay) - mixed).max() < 1e-4


def test_a_vit_without_its_head_is_refused(lineage, monkeypatch):
    monkeypatch.setattr("utils.feedback.cached_judge.read_tensors", lambda path: {"backbone.x": np.zeros(1)})
    with pytest.raises(WeightsCorruptError, match="lack its head"):
        load_parts(lineage.base)


# The gate of promotion: each bound by itself, against the version in use and against the base.

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
