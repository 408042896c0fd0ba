"""Which way up a medium is, told by the faces in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from utils.faces.judgeable import as_stored, find_turn, is_upright, turn_upright
from utils.types import Box, Face, Frame, Media, MediaInfo, MediaKind, Pixels


class Counting:
    """The detector, and how often it was asked."""

    def __init__(self, detector) -> None:
        self.detector, self.looks = detector, 0

    def detect(self, rgb: Pixels) -> tuple[Face, ...]:
        self.looks += 1
        return self.detector.detect(rgb)


def media_of(*pictures: Pixels) -> Media:
    height, width = pictures[0].shape[:2]
    kind = MediaKind.VIDEO if pictures[1:] else MediaKind.IMAGE
    info = MediaInfo(
        kind=kind, format="png", mime="image/png", width=width, height=height, size_bytes=1, sha256="0" * 64,
        duration_s=1.0 if pictures[1:] else None,
    )  # fmt: skip
    return Media(info, tuple(Frame(i, i / 10, np.ascontiguousarray(p)) for i, p in enumerate(pictures)))


def turn_of(detector, media: Media) -> tuple[int, int]:
    counting = Counting(detector)
    found = [detector.detect(frame.pixels) for frame in media.frames]
    return find_turn(counting, media.frames, found), counting.looks


def test_upright_photo_stays_and_costs_no_further_look(face_detector, photo):
    assert is_upright(face_detector.detect(photo)[0])
    assert turn_of(face_detector, media_of(photo)) == (0, 0)


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_turned_photo_is_turned_back(face_detector, photo, turn):
    media = media_of(np.rot90(photo, turn))
    back, looks = turn_of(face_detector, media)
    assert (back, looks) == (4 - turn, 3)
    assert np.array_equal(turn_upright(media, back).frames[0].pixels, photo)


def test_clip_is_turned_by_the_frames_that_show_somebody(face_detector, photo):
    small = photo[::2, ::2]
    wall = np.full_like(small, 120)
    assert turn_of(face_detector, media_of(*[wall] * 9, *[np.rot90(small)] * 2)) == (3, 6)
    assert turn_of(face_detector, media_of(*[wall] * 9, *[small] * 2)) == (0, 0)


def test_picture_without_a_face_stays_as_it_is(face_detector):
    assert turn_of(face_detector, media_of(np.full((90, 120, 3), 200, np.uint8))) == (0, 3)


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
@pytest.mark.parametrize("larger", [1, 2])
def test_boxes_go_back_to_where_they_are_in_the_file(turn, larger):
    stored = np.zeros((60, 90, 3), np.uint8)
    stored[10:20, 30:70] = 255
    media = media_of(stored)
    media = replace(media, info=replace(media.info, width=90 * larger, height=60 * larger))
    if turn:
        media = turn_upright(media, turn)
        assert [n.code for n in media.notices] == ["turned"]
    rows, columns = np.nonzero(media.frames[0].pixels[:, :, 0])
    box = Box(int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
    assert as_stored(box, media) == Box(30 * larger, 10 * larger, 70 * larger, 20 * larger)
