"""The limits: exactly at the border is allowed, one step beyond is not."""

from __future__ import annotations

import pytest

from utils.config import MediaSettings
from utils.errors import MediaDimensionsError, MediaTooLongError
from utils.media.limits import DURATION_GRACE_S, NOTICE_TEXTS, Facts, MediaLimits


def test_defaults_are_those_of_the_settings() -> None:
    assert MediaLimits.of(MediaSettings()) == MediaLimits()


def test_size_at_and_beyond_the_border() -> None:
    limits = MediaLimits(max_megapixels=0.01, min_side_px=50)
    limits.check_size(100, 100)
    limits.check_size(200, 50)
    with pytest.raises(MediaDimensionsError, match=r"101 x 100 pixels are more than the 0.01 megapixels"):
        limits.check_size(101, 100)
    with pytest.raises(MediaDimensionsError, match="at least 50"):
        limits.check_size(49, 100)
    with pytest.raises(MediaDimensionsError):
        limits.check_size(100, 0)


def test_duration_at_and_beyond_the_border() -> None:
    limits = MediaLimits(max_duration_s=10.0)
    limits.check_duration(10.0 + DURATION_GRACE_S)
    with pytest.raises(MediaTooLongError, match=r"10\.6 seconds"):
        limits.check_duration(10.6)


def test_notices_carry_their_sentence() -> None:
    (notice,) = Facts(1, 1, notices=("animated",)).as_notices()
    assert (notice.code, notice.text) == ("animated", NOTICE_TEXTS["animated"])
