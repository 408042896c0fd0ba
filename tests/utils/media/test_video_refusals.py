"""Videos that are cut off, damaged, too large or no videos: what is there, or a coded error."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.utils.media.test_video import LIMITS, Encode, Grey, assert_in_order, decode
from utils.errors import MediaCorruptError, MediaDimensionsError, MediaError, MediaTooLongError, UnsupportedMediaError
from utils.media.limits import MediaLimits
from utils.media.sniff import FORMATS
from utils.media.video import decode_video


@pytest.mark.parametrize("name", ["mp4", "matroska", "webm", "avi", "flv"])
def test_cut_off_files_give_what_is_there(name: str, encode_clip: Encode, grey: Grey) -> None:
    muxer = {
        "mp4": ("mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
        "matroska": ("matroska", "libx264", {}),
        "webm": ("webm", "libvpx", {}),
        "avi": ("avi", "mpeg4", {}),
        "flv": ("flv", "flv", {}),
    }[name]
    noise = np.random.default_rng(1).integers(0, 256, (64, 96, 3), np.uint8)
    whole = encode_clip(muxer[0], muxer[1], container_options=muxer[2], picture=noise, codec_options={"g": "5"})
    frames, facts = decode(whole[: len(whole) * 2 // 3])
    assert facts.notices == ("truncated",)
    assert facts.duration_s is not None
    assert 1.0 < facts.duration_s < 3.5
    assert_in_order(frames)
    assert len(frames) >= 8
    assert decode(whole)[1].notices == ()


def test_cut_off_mp4_with_its_index_in_front(tmp_path: Path, encode_clip: Encode) -> None:
    path = tmp_path / "fast.mp4"
    noise = np.random.default_rng(1).integers(0, 256, (64, 96, 3), np.uint8)
    options = {"container_options": {"movflags": "faststart"}, "codec_options": {"g": "5"}}
    encode_clip("mp4", "libx264", picture=noise, target=str(path), **options)
    whole = path.read_bytes()
    assert len(decode(whole)[0]) == 16
    frames, facts = decode(whole[: len(whole) * 2 // 3])
    assert facts.notices == ("truncated",)
    assert len(frames) >= 8
    assert_in_order(frames)


def test_cut_off_mp4_without_its_index_is_corrupt(clips: dict[str, bytes]) -> None:
    whole = clips["mp4"]
    open_end = whole.index(b"mdat") - 4  # a camera writes the length of its data at the end, with the index
    for broken in (
        whole[: len(whole) // 2],
        whole[:-100],
        whole[:open_end] + bytes(4) + whole[open_end + 4 : len(whole) // 2],
    ):
        with pytest.raises(MediaCorruptError, match=r"no index.*untrunc"):
            decode(broken)


def test_damaged_packets_in_the_middle_are_stepped_over(encode_clip: Encode) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 96, 3), np.uint8)
    data = bytearray(encode_clip("mp4", "mpeg4", picture=noise, codec_options={"g": "5"}))
    healthy, _ = decode(bytes(data))
    middle = len(data) // 2
    data[middle : middle + 1500] = np.random.default_rng(2).bytes(1500)
    frames, facts = decode(bytes(data))
    assert facts.notices == ("truncated",)
    assert len(frames) == 16
    same = [bool((a.pixels == b.pixels).all()) for a, b in zip(frames, healthy, strict=True)]
    assert same[0]
    assert same[-1]
    assert not all(same)
    assert_in_order(frames)


def test_sizes_outside_the_limits(encode_clip: Encode) -> None:
    clip = encode_clip("mp4", "libx264", count=2)
    with pytest.raises(MediaDimensionsError, match="megapixels"):
        decode(clip, limits=MediaLimits(max_megapixels=0.006))
    with pytest.raises(MediaDimensionsError, match="at least 65"):
        decode(clip, limits=MediaLimits(min_side_px=65))


def test_a_frame_larger_than_its_header_says_is_refused(encode_clip: Encode) -> None:
    data = encode_clip("flv", "flv", count=2, size=(640, 480))
    assert len(decode(data)[0]) == 2
    with pytest.raises(MediaError) as caught:
        decode(data, limits=MediaLimits(max_megapixels=0.3))
    assert caught.value.code == "media_dimensions"


def test_too_long_by_the_header_and_by_the_packets(encode_clip: Encode) -> None:
    limits = MediaLimits(max_duration_s=3.0)
    with pytest.raises(MediaTooLongError):
        decode(encode_clip("mp4", "libx264"), limits=limits)
    silent_header = encode_clip("webm", "libvpx", container_options={"live": "1"})
    with pytest.raises(MediaTooLongError):
        decode(silent_header, limits=limits)
    assert decode(silent_header, limits=MediaLimits(max_duration_s=4.0))[0]


def test_a_playlist_does_not_become_a_video(tmp_path: Path, clips: dict[str, bytes]) -> None:
    (tmp_path / "secret.mp4").write_bytes(clips["mp4"])
    for text in (
        f"ffconcat version 1.0\nfile {tmp_path}/secret.mp4\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{tmp_path}/secret.mp4\n#EXT-X-ENDLIST\n",
    ):
        (tmp_path / "trick.mp4").write_text(text)
        with pytest.raises(UnsupportedMediaError):
            decode_video(tmp_path / "trick.mp4", 4, LIMITS)
        # Even behind a wrong sniff FFmpeg knows but one demuxer.
        for container in ("mp4", "matroska", "avi", "flv"):
            with pytest.raises(MediaCorruptError):
                decode_video(tmp_path / "trick.mp4", 4, LIMITS, FORMATS[container])


def test_sound_alone_and_pictures_are_no_video(encode_clip: Encode) -> None:

    out = io.BytesIO()
    with av.open(out, "w", format="matroska") as sink:
        stream = sink.add_stream("aac", rate=48000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 48000
        sink.mux(stream.encode(silence))
        sink.mux(stream.encode(None))
    with pytest.raises(UnsupportedMediaError, match="no video"):
        decode(out.getvalue())
    with pytest.raises(UnsupportedMediaError):
        decode_video(io.BytesIO(b"\xff\xd8\xff"), 4, LIMITS)


def test_an_unlisted_codec_is_refused(encode_clip: Encode) -> None:
    with pytest.raises(UnsupportedMediaError, match="codec"):
        decode(encode_clip("matroska", "snow", count=2, codec_options={"strict": "-2"}))


@pytest.fixture(scope="module")
def small_clips(encode_clip: Encode) -> list[bytes]:
    made = (("mp4", "libx264"), ("matroska", "mpeg4"), ("avi", "mpeg4"), ("flv", "flv"))
    return [encode_clip(container, codec, count=6, size=(48, 48)) for container, codec in made]


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 3), st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=5), st.data()
)
def test_damaged_bytes_give_frames_or_our_error(
    small_clips: list[bytes], which: int, edits: list[tuple[float, bytes]], data: Any
) -> None:
    damaged = bytearray(small_clips[which])
    for where, value in edits:
        at = int(where * (len(damaged) - len(value)))
        damaged[at : at + len(value)] = value
    length = data.draw(st.integers(len(damaged) // 4, len(damaged)))
    try:
        frames, _ = decode(bytes(damaged[:length]), frames=4)
    except MediaError as error:
        assert error.code != "media_error"  # noqa: PT017 - both outcomes are right
    else:
        assert_in_order(frames)
