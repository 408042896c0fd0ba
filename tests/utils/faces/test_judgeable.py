"""Faces that cannot be judged, made of one that can."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from utils.faces.crops import crop_for_networks
from utils.faces.detector import CenterFaceDetector
from utils.faces.judgeable import why_not_judged
from utils.types import FaceTrack, Notice, Pixels, Sighting


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
