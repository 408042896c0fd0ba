"""Golden pictures are known again, through decoding, face search and the networks of the version in use."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.config import DetectionSettings, Settings
from utils.detection.pipeline import Analyser, load_analyser
from utils.errors import NothingNewError
from utils.feedback.cached_judge import load_parts, probabilities, right_verdicts
from utils.feedback.feature_set import FeatureSet, join_features
from utils.feedback.golden import Lineage, known_again, load_lineage
from utils.feedback.items import prepare_faces
from utils.feedback.quarantine import LearningItem
from utils.feedback.remember import Recipe
from utils.feedback.retrain import Candidate, gather, make_candidate
from utils.types import Pixels
from utils.weights import current_name, verify_version, weights_root


@pytest.fixture(scope="module")
def analyser() -> Iterator[Analyser]:
    return load_analyser(Settings(detection=DetectionSettings(engine="torch", device="cpu", threads=1)))


def item_of(path: Path, analyser: Analyser, folder: Path) -> LearningItem:
    found = prepare_faces(path, analyser).faces[None]
    assert not isinstance(found, str), found
    found.save(folder / f"{path.stem}.npz")
    return LearningItem(path.stem, 0, folder / f"{path.stem}.npz", "user")


def features_of(item: LearningItem, lineage: Lineage) -> FeatureSet:
    empty = dataclasses.replace(lineage.golden[0], features=lineage.replay)  # of which nothing is known again here
    return gather([item], dataclasses.replace(lineage, golden=(empty,)))[0]


def test_changed_copies_of_a_golden_picture_are_not_learned(analyser: Analyser, photo: Pixels, tmp_path: Path) -> None:
    root = weights_root(Settings())
    lineage = load_lineage(verify_version(root, current_name(root)))
    picture = cv2.cvtColor(photo, cv2.COLOR_RGB2BGR)
    height, width = picture.shape[:2]
    cut = picture[height // 25 :, width // 30 : -(width // 30)]
    copies = {"first": picture, "coded": picture, "large": cv2.resize(picture, None, fx=1.5, fy=1.5), "cut": cut,
              "small": cv2.resize(picture, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)}  # fmt: skip
    for name, pixels in copies.items():
        ending, how = (".png", []) if name == "first" else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 70])
        assert cv2.imwrite(str(tmp_path / f"{name}{ending}"), pixels, how)
    first = features_of(item_of(tmp_path / "first.png", analyser, tmp_path), lineage)
    golden = dataclasses.replace(lineage.golden[0], features=join_features([lineage.golden[0].features, first]))
    with_photo = dataclasses.replace(lineage, golden=(golden,))
    for name in ("coded", "large", "cut", "small"):
        item = item_of(tmp_path / f"{name}.jpg", analyser, tmp_path)
        assert not known_again(features_of(item, lineage), lineage.golden[0]).any()
        with pytest.raises(NothingNewError, match="1 belong to a golden set"):
            gather([item], with_photo)
    strangers = known_again(lineage.replay, golden)
    assert strangers.mean() < 0.02, "other people in pictures of the same sources are learned from"


# Honest corrections of what the version in use gets wrong are learned within the bounds of its golden set.


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
