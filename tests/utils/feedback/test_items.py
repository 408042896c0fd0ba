"""From a file to cached features: the same answer as the analysis gives, and a reason where there is none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from utils.detection.pipeline import analyse, examine
from utils.errors import TrainingDataError
from utils.feedback import items
from utils.feedback.cached_judge import load_parts, probabilities
from utils.feedback.golden import add_own
from utils.feedback.items import chosen, hash_of, prepare_faces, prepared
from utils.weights import frozen_fingerprint, verify_version


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
