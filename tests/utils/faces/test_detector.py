"""The contract of every face detector, and CenterFace under it."""

from __future__ import annotations

import cv2
import numpy as np
import openvino
import pytest

from utils.base_weights import FACE_FILE
from utils.faces.detector import MIN_SCORE, CenterFaceDetector, FaceDetector, shared_area
from utils.types import Face, Pixels

EYES, NOSE, MOUTH = slice(0, 2), 2, slice(3, 5)


def grown(pixels: Pixels, width: int, height: int) -> Pixels:
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def assert_is_a_face(face: Face) -> None:
    """Eyes above nose above mouth, left ones left of right ones, all inside the box."""
    marks, box = face.landmarks, face.box
    assert (marks[:, 0] > box.x0).all()
    assert (marks[:, 0] < box.x1).all()
    assert (marks[:, 1] > box.y0).all()
    assert (marks[:, 1] < box.y1).all()
    assert marks[EYES, 1].max() < marks[NOSE, 1] < marks[MOUTH, 1].min()
    assert marks[0, 0] < marks[NOSE, 0] < marks[1, 0]
    assert marks[3, 0] < marks[4, 0]


class FaceDetectorContract:
    """What holds for every `FaceDetector`; a subclass gives the fixture `detector`."""

    def test_one_person_is_one_face_with_landmarks_in_place(self, detector: FaceDetector, photo: Pixels):
        (face,) = detector.detect(photo)
        assert face.score > 0.5
        assert_is_a_face(face)
        # where they are to the eye of a person, in pixels of the portrait
        known = [[203, 102], [248, 104], [225, 126], [205, 142], [241, 144]]
        assert np.abs(face.landmarks - np.array(known)).max() < 12
        assert np.abs(np.array(face.box.centre) - [225, 118]).max() < 12

    @pytest.mark.parametrize("small_first", [True, False])
    def test_the_largest_comes_first(self, detector: FaceDetector, photo: Pixels, small_first: bool):
        both = np.zeros((512, 768, 3), np.uint8)
        at_large, at_small = (256, 0) if small_first else (0, 512)
        both[:, at_large : at_large + 512] = photo
        both[:256, at_small : at_small + 256] = cv2.resize(photo, (256, 256), interpolation=cv2.INTER_AREA)
        large, small = detector.detect(both)
        assert large.box.width > 1.5 * small.box.width
        assert abs(large.box.centre[0] - (at_large + 225)) < 15
        assert abs(small.box.centre[0] - (at_small + 112)) < 10
        assert_is_a_face(large)
        assert_is_a_face(small)

    def test_pictures_without_a_face_give_none(self, detector: FaceDetector):
        ramp = np.linspace(0, 255, 300, dtype=np.uint8)
        for picture in (
            np.zeros((200, 300, 3), np.uint8),
            np.full((300, 300, 3), 255, np.uint8),
            np.repeat(np.tile(ramp, (200, 1))[:, :, None], 3, axis=2),
            np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8),
        ):
            assert detector.detect(picture) == ()

    @pytest.mark.parametrize("side", [96, 224, 512, 900, 1600])
    @pytest.mark.parametrize("trim", [0.0, 0.05, 0.1])
    def test_tight_crop_of_a_face_is_one_face_at_any_size(self, detector: FaceDetector, photo: Pixels, side, trim):
        box = detector.detect(photo)[0].box
        dx, dy = box.width * trim, box.height * trim
        cut = photo[round(box.y0 + dy) : round(box.y1 - dy), round(box.x0 + dx) : round(box.x1 - dx)]
        (face,) = detector.detect(grown(cut, side, side))
        assert max(face.box.width, face.box.height) > 0.75 * side
        assert np.abs(np.array(face.box.centre) - side / 2).max() < 0.15 * side
        marks = face.landmarks / side
        assert marks[EYES, 1].max() < marks[NOSE, 1] < marks[MOUTH, 1].min()
        assert marks[0, 0] < marks[1, 0]
        assert np.abs(marks[NOSE] - 0.5).max() < 0.25

    @pytest.mark.parametrize(
        "size", [(1, 1), (2, 3), (1, 700), (700, 1), (33, 31), (17, 4001), (40, 60000), (60000, 40), (2001, 1999)]
    )
    def test_tiny_odd_and_extreme_sizes_are_answered(self, detector: FaceDetector, size):
        assert detector.detect(np.full((*size, 3), 200, np.uint8)) == ()

    def test_same_picture_same_answer_whatever_came_between(self, detector: FaceDetector, photo: Pixels):
        first = detector.detect(photo)
        detector.detect(np.zeros((100, 320, 3), np.uint8))
        again = detector.detect(photo)
        assert [f.box for f in again] == [f.box for f in first]
        assert np.array_equal(again[0].landmarks, first[0].landmarks)

    def test_mirrored_picture_gives_the_mirrored_face(self, detector: FaceDetector, photo: Pixels):
        (face,), (mirrored,) = detector.detect(photo), detector.detect(photo[:, ::-1])
        assert mirrored.box.centre[0] == pytest.approx(512 - face.box.centre[0], abs=8)
        assert_is_a_face(mirrored)

    def test_picture_is_left_as_it_was(self, detector: FaceDetector, photo: Pixels):
        own = photo.copy()
        detector.detect(own)
        assert np.array_equal(own, photo)


class TestCenterFace(FaceDetectorContract):
    @pytest.fixture
    def detector(self, face_detector: CenterFaceDetector) -> CenterFaceDetector:
        return face_detector

    def test_the_box_is_the_same_on_every_processor(self, detector: FaceDetector, photo: Pixels):
        """In bf16, which some processors would choose by themselves, the upper edge lies half a pixel lower."""
        box = detector.detect(photo)[0].box
        assert np.abs(np.array([box.x0, box.y0, box.x1, box.y1]) - [181.53, 58.20, 269.88, 177.81]).max() < 0.1


def test_border_around_an_extreme_picture_stays_small(face_detector, monkeypatch):
    """The second look shrinks first: otherwise a file within the limits would take many gigabytes."""
    sizes = []
    put_border = cv2.copyMakeBorder

    def record(picture, *args, **kwargs):
        framed = put_border(picture, *args, **kwargs)
        sizes.append(framed.shape)
        return framed

    monkeypatch.setattr(cv2, "copyMakeBorder", record)
    face_detector.detect(np.zeros((40, 60000, 3), np.uint8))
    assert sizes
    assert max(max(shape) for shape in sizes) <= 640 * 1.7 + 1


def test_score_below_the_wanted_confidence_is_dropped(base_folder, photo):
    detector = CenterFaceDetector(base_folder / "centerface.onnx", threads=1)
    (face,) = detector.suspect(photo, MIN_SCORE)
    assert detector.suspect(photo, face.score + 0.01) == ()
    assert [found.score for found in detector.detect(photo)] == [face.score]


def test_network_computes_on_pixels_what_it_does_on_numbers(base_folder, face_detector, photo):
    core = openvino.Core()
    plain = core.read_model(str(base_folder / FACE_FILE))
    plain.reshape([1, 3, -1, -1])
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(plain, "CPU", options)
    wanted = compiled({0: photo.astype(np.float32).transpose(2, 0, 1)[None]})
    face_detector._exact.infer({0: photo[None]}, share_inputs=True)
    for own, reference in zip(face_detector._exact.output_tensors, compiled.outputs, strict=True):
        assert np.allclose(own.data, wanted[reference], atol=1e-5)


@pytest.mark.skipif("BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"), reason="no bf16")
def test_a_glance_gives_nearly_the_same_box(face_detector, photo):
    (exact,), (rough,) = face_detector.suspect(photo, MIN_SCORE), face_detector.glance(photo, MIN_SCORE)
    assert 0.95 < shared_area(exact.box, rough.box) / (exact.box.width * exact.box.height) < 1
    assert rough.score == pytest.approx(exact.score, abs=0.02)


def test_without_bf16_there_is_no_glance(base_folder, photo, monkeypatch):
    monkeypatch.setattr(openvino.Core, "get_property", lambda *asked: ["FP32"])
    assert CenterFaceDetector(base_folder / FACE_FILE, threads=1).glance(photo, MIN_SCORE) is None
