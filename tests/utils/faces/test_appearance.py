"""Looks tell two people apart and one person again; cuts are noticed, movement is none."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.utils.faces.people import other_person, person
from utils.faces.tracking import OTHER, SAME, SAME_THERE, is_cut, look_of, similarity, view_of
from utils.types import Face


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
