"""The perceptual hash: the same picture in other bytes is found, another picture is not taken for it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from utils.phash import perceptual_hash


def recoded(pixels, quality):
    done, data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


@pytest.mark.parametrize("quality", [30, 60, 90])
def test_re_encoding_keeps_the_hash(photo, quality):
    assert (perceptual_hash(photo) ^ perceptual_hash(recoded(photo, quality))).bit_count() <= 4


def test_another_size_keeps_the_hash(photo):
    smaller = cv2.resize(photo, (300, 300), interpolation=cv2.INTER_AREA)
    assert (perceptual_hash(photo) ^ perceptual_hash(smaller)).bit_count() <= 4


def test_other_pictures_have_other_hashes(photo):
    for other in (photo[::-1], photo[:, ::-1], photo[:256, 100:400]):
        assert (perceptual_hash(photo) ^ perceptual_hash(np.ascontiguousarray(other))).bit_count() > 10


def test_a_picture_without_structure_gives_zero():
    assert perceptual_hash(np.full((50, 60, 3), 90, np.uint8)) == 0
