"""Changes that mean nothing to a person: what they do to a frame, and that each is judged like the medium itself."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from utils.detection.closeup import (
    CHANGES,
    look_closer,
    reencode,
    rescale,
    shift,
    square_in_medium,
    to_png,
    try_changes,
)
from utils.detection.pipeline import analyse, find_faces
from utils.errors import NotFoundError
from utils.faces.crops import crop_for_networks
from utils.media import decode_media
from utils.types import Box, Face


@pytest.fixture(scope="module")
def portrait(tmp_path_factory, photo):
    path = tmp_path_factory.mktemp("stability") / "portrait.png"
    cv2.imwrite(str(path), photo[:, :, ::-1])
    return path


@pytest.fixture
def face() -> Face:
    landmarks = np.array([[10, 12], [20, 12], [15, 18], [11, 24], [19, 24]], np.float32)
    return Face(Box(4, 8, 24, 28), 0.9, landmarks)


def test_reencoding_changes_pixels_a_little_and_the_face_not_at_all(photo, face):
    changed, same = reencode(photo, face)
    assert same == face
    assert changed.shape == photo.shape
    difference = np.abs(changed.astype(int) - photo.astype(int))
    assert 0.5 < difference.mean() < 12


def test_rescaling_takes_the_face_along(photo, face):
    small, moved = rescale(photo, face)
    assert small.shape == (256, 256, 3)
    assert moved.box == Box(2, 4, 12, 14)
    assert moved.landmarks[0].tolist() == [5, 6]


def test_shift_moves_the_box_only(photo, face):
    same, moved = shift(photo, face)
    assert same is photo
    assert moved.box.x0 == pytest.approx(face.box.x0 + 1.2)
    assert (moved.box.width, moved.box.height) == pytest.approx((face.box.width, face.box.height))


def test_medium_as_it_is_gets_the_verdict_of_its_report(analyser, portrait):
    settings = analyser.settings
    media = decode_media(portrait, settings.media, settings.sandbox)
    (track,) = find_faces(media, analyser)
    told: list[float] = []
    trials = try_changes(track, media, analyser, lambda stage, done: told.append(done))
    report = analyse(portrait, analyser)
    assert [trial.code for trial in trials] == ["as_is", *(change.code for change in CHANGES)]
    assert trials[0].probability == pytest.approx(report.faces[0].verdict.probability, abs=1e-6)
    assert trials[0].outcome is report.faces[0].verdict.outcome
    assert not trials[0].flipped
    assert all(trial.flipped == (trial.outcome is not trials[0].outcome) for trial in trials)
    assert len({round(trial.probability, 6) for trial in trials}) > 1, "the changes reach the networks"
    assert told == sorted(told)


def test_closeup_holds_maps_and_trials_and_no_picture(analyser, portrait):
    told: list[tuple[str, float]] = []
    closeup = look_closer(portrait, analyser, 0, progress=lambda stage, done: told.append((stage, done)))
    plain = closeup.to_dict()
    assert [found["expert"] for found in plain["maps"]] == ["cnn", "resnext", "vit"]
    assert plain["trials"][0]["code"] == "as_is"
    assert plain["model_version"] == "tiny"
    x0, y0, x1, y1 = plain["square"]
    assert x1 - x0 == y1 - y0
    box = analyse(portrait, analyser).faces[0].frames[0].box
    assert x0 < box.x0
    assert y1 > box.y1
    for found in plain["maps"]:
        assert found["masks"] == 9
        assert 0 <= found["beaten"] <= 9
        assert found["faithful"] == (found["png"] is not None and found["beaten"] == 9)
    assert [done for _, done in told] == sorted(done for _, done in told)
    assert {"decode", "detect", "stability", "explain"} == {stage for stage, _ in told}


def test_unknown_face_is_told(analyser, portrait):
    with pytest.raises(NotFoundError, match="no face 7"):
        look_closer(portrait, analyser, 7)


def test_square_is_what_the_networks_see(analyser, portrait):
    media = decode_media(portrait, analyser.settings.media, analyser.settings.sandbox)
    (track,) = find_faces(media, analyser)
    seen = track.sightings[0]
    square = square_in_medium(seen, media)
    cut = media.frames[0].pixels[int(square.y0) : int(square.y1), int(square.x0) : int(square.x1)]
    network = crop_for_networks(media.frames[0].pixels, seen.face).pixels
    assert np.abs(cv2.resize(cut, (224, 224)).astype(int) - network.astype(int)).mean() < 6


def test_map_becomes_a_grey_png_of_its_own_size():
    grid = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    read = cv2.imdecode(np.frombuffer(to_png(grid), np.uint8), cv2.IMREAD_UNCHANGED)
    assert read.shape == (3, 4)
    assert (read[0, 0], read[2, 3]) == (0, 255)
