"""Honest corrections of what the version in use gets wrong are learned within the bounds of its golden set."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from utils.config import Settings
from utils.feedback.cached_judge import load_parts, probabilities, right_verdicts
from utils.feedback.golden import Lineage, load_lineage
from utils.feedback.remember import Recipe
from utils.feedback.retrain import Candidate, make_candidate
from utils.weights import current_name, verify_version, weights_root


def taught(lineage: Lineage, seed: int, recipe: Recipe) -> tuple[int, Candidate]:
    """How many items of one half of the replay buffer are not right, and what comes of teaching them with the other."""
    half = np.random.default_rng(seed).permutation(len(lineage.replay)) % 2 == 0
    pool = lineage.replay.select(half)
    right = right_verdicts(pool.labels, probabilities(load_parts(lineage.base), pool), lineage.base)
    mistakes = dataclasses.replace(pool.select(~right), sources=("user",) * int((~right).sum()))
    rest = dataclasses.replace(lineage, replay=lineage.replay.select(~half))
    return len(mistakes), make_candidate(mistakes, rest, lineage.base, recipe)


@pytest.mark.parametrize("seed", [11, 12])
def test_mistakes_of_the_version_in_use_are_learned_within_its_bounds(seed: int) -> None:
    root = weights_root(Settings())
    lineage = load_lineage(verify_version(root, current_name(root)))
    count, done = taught(lineage, seed, Recipe())
    assert count >= 50
    assert done.verdict.promoted, done.verdict.reason
    assert done.lost == ()
    golden = done.compared[0]
    assert golden.new.auc > golden.base.auc - 0.002
    assert done.after.all(), "each correction is right in the version that learned it"
