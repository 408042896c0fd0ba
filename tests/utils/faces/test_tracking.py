"""People keep their identity from frame to frame."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.utils.faces.people import other_person, person
from utils.faces.tracking import (
    OTHER,
    SAME,
    SAME_THERE,
    is_cut,
    look_of,
    similarity,
    thinned,
    track_faces,
    turns_of,
    view_of,
)
from utils.types import Box, Face, FaceTrack

FRAMES = 16


def face(cx: float, cy: float, size: float = 60) -> Face:
    half = size / 2
    return Face(Box(cx - half, cy - half, cx + half, cy + half), 0.9, np.zeros((5, 2), np.float32))


def path(track: FaceTrack) -> list[float]:
    return [s.face.box.centre[0] for s in track.sightings]


def sizes(track: FaceTrack) -> set[int]:
    return {round(s.face.box.width) for s in track.sightings}


def test_no_faces_no_tracks():
    assert track_faces([]) == ()
    assert track_faces([[], [], []]) == ()


def test_one_still_person_is_one_track():
    (track,) = track_faces([[face(100, 100)]] * FRAMES)
    assert [s.frame for s in track.sightings] == list(range(FRAMES))
    assert track.id == 0


@pytest.mark.parametrize("swapped", [False, True])
def test_two_people_crossing_each_other_keep_apart(swapped):
    """The nearer one is larger; the order in which the detector names them does not matter."""
    frames = []
    for i in range(FRAMES):
        pair = [face(100 + 30 * i, 200, 90), face(550 - 30 * i, 190, 50)]
        frames.append(pair[::-1] if swapped and i % 2 else pair)
    near, far = track_faces(frames)
    assert (sizes(near), sizes(far)) == ({90}, {50})
    assert path(near) == [100 + 30 * i for i in range(FRAMES)]
    assert path(far) == [550 - 30 * i for i in range(FRAMES)]


def test_order_of_detections_within_a_frame_changes_nothing():
    frames = [[face(100 + i, 100, 60), face(300, 100 + i, 80), face(500, 300, 70)] for i in range(FRAMES)]
    turned = [faces[i % 3 :] + faces[: i % 3] for i, faces in enumerate(frames)]
    assert [path(t) for t in track_faces(frames)] == [path(t) for t in track_faces(turned)]


def test_person_who_leaves_and_person_who_comes():
    frames = [[face(100, 100, 80)] + ([face(400, 100)] if i < 10 else []) for i in range(FRAMES)]
    stays, leaves = track_faces(frames)
    assert (len(stays.sightings), len(leaves.sightings)) == (16, 10)
    frames = [[face(100, 100, 80)] + ([face(400, 100)] if i >= 11 else []) for i in range(FRAMES)]
    assert [s.frame for s in track_faces(frames)[1].sightings] == [11, 12, 13, 14, 15]


def test_frames_without_detection_do_not_break_a_track():
    frames = [[face(100 + i, 100)] if i % 3 else [] for i in range(FRAMES)]
    (track,) = track_faces(frames)
    assert [s.frame for s in track.sightings] == [i for i in range(FRAMES) if i % 3]


def test_false_detection_in_one_frame_of_sixteen_is_dropped():
    frames = [[face(100, 100)] for _ in range(FRAMES)]
    frames[7] = [face(400, 300, 200), face(100, 100)]
    (track,) = track_faces(frames)
    assert sizes(track) == {60}


def test_the_only_face_stays_however_short():
    frames: list[list[Face]] = [[] for _ in range(FRAMES)]
    frames[3] = [face(100, 100)]
    (track,) = track_faces(frames)
    assert [s.frame for s in track.sightings] == [3]


def test_people_of_a_photo_are_numbered_by_size():
    tracks = track_faces([[face(100, 100, 40), face(300, 100, 90), face(500, 100, 60)]])
    assert [(t.id, max(sizes(t))) for t in tracks] == [(0, 90), (1, 60), (2, 40)]


@pytest.mark.parametrize(
    ("second", "same"),
    [
        (face(155, 100), True),
        (face(165, 100), False),
        (face(100, 100, 105), True),
        (face(100, 100, 115), False),
    ],
    ids=["one width", "further", "grown a little", "grown much"],
)
def test_how_far_a_face_may_move_and_grow(second, same):
    assert len(track_faces([[face(100, 100)], [second]])) == (1 if same else 2)


def test_a_cut_to_somebody_else_in_the_same_place_is_a_second_track():
    """One person, another and the first again, as an interview is cut; and the same without a cut."""
    order = [0] * 20 + [1] * 7 + [0] * 20
    looks = [[(look_of(*person()), look_of(*other_person()))[who]] for who in order]
    frames = [[face(100, 100)] for _ in order]
    (everything,) = track_faces(frames)
    assert len(everything.sightings) == len(order)
    first, second = track_faces(frames, looks=looks, cuts={20, 27})
    assert [s.frame for s in second.sightings] == list(range(20, 27))
    assert len(first.sightings) == 40
    assert turns_of([first, second]) == 2
    assert turns_of([first]) == turns_of([]) == 1
    without_cuts = track_faces(frames, looks=looks)
    assert {len(track.sightings) for track in without_cuts} == {7, 40}


def test_a_cut_to_another_place_keeps_the_person():
    looks = [[look_of(*person())]] * 16
    frames = [[face(100, 100)] if i < 8 else [face(500, 300, 90)] for i in range(16)]
    assert len(track_faces(frames, looks=looks)) == 2
    (track,) = track_faces(frames, looks=looks, cuts={8})
    assert len(track.sightings) == 16


def test_four_sightings_of_a_long_clip_are_enough():
    frames = [[face(100, 100)] + ([face(400, 100)] if 30 <= i < 34 else []) for i in range(60)]
    assert [len(track.sightings) for track in track_faces(frames)] == [60, 4]
    frames = [[face(100, 100)] + ([face(400, 100)] if 30 <= i < 33 else []) for i in range(60)]
    assert [len(track.sightings) for track in track_faces(frames)] == [60]


def test_a_long_track_is_thinned_evenly():
    (track,) = track_faces([[face(100, 100)]] * 60)
    few = thinned(track, 48)
    gaps = np.diff([s.frame for s in few.sightings])
    assert (len(few.sightings), set(gaps.tolist()), few.id) == (48, {1, 2}, track.id)
    assert thinned(track, 60) == track


# Looks tell two people apart and one person again; cuts are noticed, movement is none.


def test_one_person_is_alike_and_two_are_not() -> None:
    photo, face = person()
    there = look_of(photo, face)
    lighter = np.clip(photo.astype(np.float32) * 1.15 + 5, 0, 255).astype(np.uint8)
    turn = cv2.getRotationMatrix2D(face.box.centre, 8, 1.0)
    turned = np.asarray(cv2.warpAffine(photo, turn, photo.shape[1::-1]), np.uint8)
    marks = cv2.transform(face.landmarks[None], turn)[0].astype(np.float32)
    for again in (look_of(lighter, face), look_of(turned, Face(face.box, face.score, marks))):
        assert similarity(there, again) > SAME
    other, of_other = other_person()
    assert similarity(there, look_of(other, of_other)) < SAME_THERE
    assert similarity(there, there) == pytest.approx(1, abs=1e-5)
    assert OTHER < SAME_THERE < SAME


def test_landmarks_that_are_no_faces_give_a_look() -> None:
    photo, face = person()
    nowhere = Face(face.box, 0.5, np.zeros((5, 2), np.float32))
    assert np.isfinite(similarity(look_of(photo, nowhere), look_of(photo, face)))
    assert np.isfinite(similarity(look_of(np.zeros_like(photo), face), look_of(photo, face)))


def test_cuts_and_movement() -> None:
    photo, _ = person()
    moved = np.roll(photo, 40, axis=1)
    darker = (photo * 0.93).astype(np.uint8)
    other = np.roll(255 - photo, photo.shape[0] // 2, axis=0)
    assert not is_cut(view_of(photo), view_of(moved))
    assert not is_cut(view_of(photo), view_of(darker))
    assert is_cut(view_of(photo), view_of(other))
