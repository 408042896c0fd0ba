"""From a file to cached features: the same answer as the analysis gives, and a reason where there is none."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from utils.config import DetectionSettings, Settings
from utils.detection.pipeline import Analyser, analyse, examine, load_analyser
from utils.errors import NothingNewError, TrainingDataError
from utils.feedback import items
from utils.feedback.cached_judge import load_parts, probabilities, right_verdicts
from utils.feedback.feature_set import FeatureSet, join_features
from utils.feedback.golden import Lineage, add_own, known_again, load_lineage
from utils.feedback.items import chosen, hash_of, prepare_faces, prepared
from utils.feedback.quarantine import LearningItem
from utils.feedback.remember import Recipe
from utils.feedback.retrain import Candidate, gather, make_candidate
from utils.types import Pixels
from utils.weights import current_name, frozen_fingerprint, verify_version, weights_root


@pytest.fixture
def portrait(tmp_path, photo):
    path = tmp_path / "portrait.png"
    Image.fromarray(photo).save(path)
    return path


def test_cached_features_give_the_probability_of_the_analysis(portrait, analyser, tiny_root):
    report = analyse(portrait, analyser)
    prepared = prepare_faces(portrait, analyser)
    version = verify_version(tiny_root, "tiny")
    item = prepared.faces[None]
    assert not isinstance(item, str)
    assert item.experts == frozen_fingerprint(version)
    assert prepared.deciding == report.deciding_face
    score = probabilities(load_parts(version), item.as_features(label=1, source="x", key="k"))[0]
    assert score == pytest.approx(report.verdict.probability, abs=0.02)  # tokens are kept with 16 bits


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda photo: np.full_like(photo, 128), "No face"),
        (lambda photo: photo[::6, ::6], "No face|at least 40"),
    ],
)
def test_media_outside_the_domain_give_a_reason(tmp_path, photo, analyser, make, reason):
    path = tmp_path / "other.png"
    Image.fromarray(np.ascontiguousarray(make(photo))).save(path)
    prepared = prepare_faces(path, analyser)
    assert any(part in prepared.faces[None] for part in reason.split("|"))
    assert prepared.phash is not None


def test_a_small_face_and_an_unknown_number_are_named(portrait, analyser, tiny_root, settings_for):
    strict = dataclasses.replace(analyser, settings=settings_for(tiny_root, min_face_px=300))
    assert "at least 300 are needed" in prepare_faces(portrait, strict).faces[None]
    assert "no face number 7" in prepare_faces(portrait, analyser, [7]).faces[7]


def test_a_file_is_decoded_once_for_all_its_faces(portrait, analyser, monkeypatch):
    number = prepare_faces(portrait, analyser).deciding
    decoded = []
    monkeypatch.setattr(items, "examine", lambda *a, **k: decoded.append(a) or examine(*a, **k))
    prepared = prepare_faces(portrait, analyser, [None, number, 7])
    assert len(decoded) == 1
    assert prepared.faces[None] is prepared.faces[number]
    assert "no face number 7" in prepared.faces[7]


def test_a_file_that_is_no_picture_is_no_item(tmp_path, analyser):
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    prepared = prepare_faces(path, analyser)
    assert prepared.phash is None
    assert "decoded" in prepared.faces[None]


def test_an_own_golden_set_needs_enough_files_of_both_labels(tmp_path, portrait, tiny_root, settings_for):
    with pytest.raises(TrainingDataError, match="needs 10 of each label"):
        add_own(tmp_path / "own", "mine", [portrait] * 3, [], settings_for(tiny_root))
    with pytest.raises(TrainingDataError, match="not allowed"):
        add_own(tmp_path / "own", "../x", [], [], settings_for(tiny_root))


def test_an_analysis_gives_the_same_features_without_asking_the_networks_again(
    portrait, analyser, tiny_root, monkeypatch
):
    kept, hashes = [], []
    experts = frozen_fingerprint(verify_version(tiny_root, "tiny"))

    def keep(people, scores, report):
        kept.append(prepared(people, scores, report, hashes[0], analyser.engine, experts))

    report = analyse(portrait, analyser, on_media=lambda media: hashes.extend(hash_of(media)), on_scores=keep)
    again = prepare_faces(portrait, analyser, [None, report.deciding_face, 7])
    monkeypatch.setattr(analyser.engine, "run", None)
    found = chosen(kept[0], [None, report.deciding_face, 7])
    assert (found.phash, found.deciding) == (again.phash, again.deciding)
    assert found.faces[7] == again.faces[7] == "There is no face number 7."
    for face in (None, report.deciding_face):
        for part in ("tokens", "logits", "quality"):
            np.testing.assert_array_equal(getattr(found.faces[face], part), getattr(again.faces[face], part))
        assert found.faces[face].experts == experts


# Golden pictures are known again, through decoding, face search and the networks of the version in use.


@pytest.fixture(scope="module")
def served() -> Iterator[Analyser]:
    return load_analyser(Settings(detection=DetectionSettings(engine="torch", device="cpu", threads=1)))


def item_of(path: Path, served: Analyser, folder: Path) -> LearningItem:
    found = prepare_faces(path, served).faces[None]
    assert not isinstance(found, str), found
    found.save(folder / f"{path.stem}.npz")
    return LearningItem(path.stem, 0, folder / f"{path.stem}.npz", "user")


def features_of(item: LearningItem, lineage: Lineage) -> FeatureSet:
    empty = dataclasses.replace(lineage.golden[0], features=lineage.replay)  # of which nothing is known again here
    return gather([item], dataclasses.replace(lineage, golden=(empty,)))[0]


def test_changed_copies_of_a_golden_picture_are_not_learned(served: Analyser, photo: Pixels, tmp_path: Path) -> None:
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
    first = features_of(item_of(tmp_path / "first.png", served, tmp_path), lineage)
    golden = dataclasses.replace(lineage.golden[0], features=join_features([lineage.golden[0].features, first]))
    with_photo = dataclasses.replace(lineage, golden=(golden,))
    for name in ("coded", "large", "cut", "small"):
        item = item_of(tmp_path / f"{name}.jpg", served, tmp_path)
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
