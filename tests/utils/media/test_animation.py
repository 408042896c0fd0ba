"""Moving pictures: the frames, times and colours that a browser shows, and one picture where there is only one."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from utils.errors import DecoderLimitError, MediaTooLongError
from utils.media import images
from utils.media.images import decode_moving
from utils.media.limits import MediaLimits

LIMITS = MediaLimits()
KINDS = {"GIF": "gif", "PNG": "apng", "WEBP": "webp", "AVIF": "av1"}


def level(index: int) -> int:
    return 40 + 20 * index


def moving(kind: str, count: int = 9, size: tuple[int, int] = (64, 48), **options: Any) -> bytes:
    out = io.BytesIO()
    first, *more = (Image.new("RGB", size, (level(n), 10, 200 - level(n))) for n in range(count))
    first.save(out, kind, save_all=True, append_images=more, **{"duration": 100, "lossless": True, **options})
    return out.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_all_frames_with_their_times(kind: str) -> None:
    frames, facts = decode_moving(io.BytesIO(moving(kind)), 16, LIMITS)
    assert [round(frame.time_s, 3) for frame in frames] == [round(n / 10, 3) for n in range(9)]
    for frame in frames:
        assert frame.pixels.shape == (48, 64, 3)
        assert np.abs(frame.pixels[20, 30].astype(int) - (level(frame.index), 10, 200 - level(frame.index))).max() <= 8
    assert (facts.width, facts.height, facts.duration_s, facts.fps) == (64, 48, 0.9, 10)
    assert (facts.codec, facts.notices) == (KINDS[kind], ())


def test_a_few_are_spread_over_the_clip_and_a_long_one_gives_more() -> None:
    data = moving("GIF", 9, duration=1000)
    few = decode_moving(io.BytesIO(data), 3, LIMITS)[0]
    assert [frame.time_s for frame in few] == [1, 4, 7]
    assert len(decode_moving(io.BytesIO(data), 3, LIMITS, most=6)[0]) == 6


@pytest.mark.parametrize("kind", KINDS)
def test_one_frame_is_a_picture(kind: str) -> None:
    (frame,), facts = decode_moving(io.BytesIO(moving(kind, 1)), 16, LIMITS)
    assert (facts.duration_s, facts.fps, facts.codec) == (None, None, None)
    assert frame.pixels.shape == (48, 64, 3)


def test_what_is_transparent_is_white_and_what_stays_stays() -> None:
    out = io.BytesIO()
    whole, part = Image.new("RGBA", (64, 48), (250, 0, 0, 255)), Image.new("RGBA", (64, 48))
    part.paste((0, 0, 250, 255), (0, 0, 32, 48))
    whole.save(out, "PNG", save_all=True, append_images=[part, Image.new("RGBA", (64, 48))], duration=100, blend=1)
    second = decode_moving(out, 16, LIMITS)[0][1].pixels
    assert second[5, 5].tolist() == [0, 0, 250]
    assert second[5, 60].tolist() == [250, 0, 0]
    clear, half = io.BytesIO(), Image.new("RGBA", (64, 48), (0, 0, 0, 51))
    half.save(clear, "WEBP", save_all=True, append_images=[part], duration=100, lossless=True)
    assert decode_moving(clear, 16, LIMITS)[0][0].pixels[5, 60].tolist() == [204, 204, 204]


def test_hasty_frames_last_as_long_as_in_a_browser() -> None:
    assert decode_moving(io.BytesIO(moving("GIF", duration=0)), 16, LIMITS)[1].duration_s == pytest.approx(0.9)


def test_large_frames_are_scaled_down() -> None:
    frames, facts = decode_moving(io.BytesIO(moving("GIF", 2, (2400, 600))), 16, LIMITS)
    assert [frame.pixels.shape for frame in frames] == [(480, 1920, 3)] * 2
    assert (facts.width, facts.height) == (2400, 600)


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MediaTooLongError):
        decode_moving(io.BytesIO(moving("GIF", duration=5000)), 4, MediaLimits(max_duration_s=30))
    monkeypatch.setattr(images, "MAX_FRAMES", 8)
    with pytest.raises(DecoderLimitError):
        decode_moving(io.BytesIO(moving("GIF")), 4, LIMITS)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_a_clip_that_ends_early_gives_what_is_there(kind: str) -> None:
    noise = [Image.fromarray(np.random.default_rng(n).integers(0, 256, (64, 64, 3), np.uint8)) for n in range(6)]
    out = io.BytesIO()
    noise[0].save(out, kind, save_all=True, append_images=noise[1:], duration=100)
    data = out.getvalue()
    frames, facts = decode_moving(io.BytesIO(data[: len(data) * 3 // 4]), 16, LIMITS)
    assert 1 <= len(frames) < 6
    assert "truncated" in facts.notices
