"""Faces that cannot be judged, made of one that can."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from utils.faces.crops import crop_for_networks
from utils.faces.detector import CenterFaceDetector
from utils.faces.judgeable import as_stored, find_turn, is_upright, turn_upright, why_not_judged
from utils.types import Box, Face, FaceTrack, Frame, Media, MediaInfo, MediaKind, Notice, Pixels, Sighting


def resized(pixels: Pixels, side: int) -> Pixels:
    method = cv2.INTER_AREA if side < pixels.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, (side, side), interpolation=method), np.uint8)


def compressed(pixels: Pixels, quality: int) -> Pixels:
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1), np.uint8)


def obstacle(detector: CenterFaceDetector, pixels: Pixels, min_face_px: int = 40) -> Notice | None:
    face = detector.detect(np.ascontiguousarray(pixels))[0]
    crop = crop_for_networks(pixels, face)
    track = FaceTrack(0, (Sighting(0, face),))
    return why_not_judged(track, [crop], [(pixels.shape[1], pixels.shape[0])], larger=1, min_face_px=min_face_px)


@pytest.mark.parametrize("side", [512, 300, 200])  # faces of 118, 69 and 46 pixels
@pytest.mark.parametrize("quality", [100, 60])
def test_whole_sharp_faces_are_judged_down_to_the_smallest(face_detector, photo, side, quality):
    assert obstacle(face_detector, compressed(resized(photo, side), quality)) is None


def test_a_tight_crop_of_a_face_is_judged_though_all_its_borders_cut(face_detector, photo):
    box = face_detector.detect(photo)[0].box
    assert obstacle(face_detector, resized(photo[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)], 300)) is None


def test_a_small_face_is_named_with_its_width(face_detector, photo):
    found = obstacle(face_detector, photo, min_face_px=300)
    assert found.code == "small_face"
    assert "at least 300" in found.text


def test_a_face_out_of_focus_is_not_judged(face_detector, photo):
    assert obstacle(face_detector, cv2.GaussianBlur(photo, (0, 0), 5)).code == "face_unsharp"


@pytest.mark.parametrize("quality", [90, 50])
def test_a_face_of_a_few_pixels_that_was_enlarged_is_not_judged(face_detector, photo, quality):
    coarse = resized(resized(photo, 72), 512)  # the face had 17 pixels
    assert obstacle(face_detector, compressed(coarse, quality)).code == "face_unsharp"


@pytest.mark.parametrize("seen", [np.s_[:, :225], np.s_[:, 228:]])
def test_half_a_face_at_the_border_is_not_judged(face_detector, photo, seen):
    assert obstacle(face_detector, photo[seen]).code == "face_cut"


def test_a_head_on_its_side_is_not_judged(face_detector, photo):
    assert obstacle(face_detector, np.ascontiguousarray(np.rot90(photo))).code == "face_turned"


# Which way up a medium is, told by the faces in it.


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
    media = replace(media_of(np.rot90(photo, turn)), samples=np.ones(3, np.float32))
    back, looks = turn_of(face_detector, media)
    assert (back, looks) == (4 - turn, 3)
    upright = turn_upright(media, back)
    assert np.array_equal(upright.frames[0].pixels, photo)
    assert upright.samples is media.samples, "the sound of a clip that lies on its side is heard too"


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
