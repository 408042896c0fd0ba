"""Videos: the right frames at the right times from each container, upright, within limits, damaged ones too."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.media import video
from utils.media.limits import MAX_VIDEO_SIDE, SPAN_FPS, Facts, MediaLimits
from utils.media.packets import packets_of
from utils.media.video import choose_times, decode_video
from utils.types import Frame

LIMITS = MediaLimits()
Encode = Callable[..., bytes]
Grey = Callable[[int], int]


def decode(data: bytes, frames: int = 16, limits: MediaLimits = LIMITS) -> tuple[tuple[Frame, ...], Facts]:
    return decode_video(io.BytesIO(data), frames, limits)


def level(frame: Frame) -> float:
    return float(frame.pixels.mean())


def assert_in_order(frames: tuple[Frame, ...]) -> None:
    times = [frame.time_s for frame in frames]
    assert times == sorted(set(times))
    assert [frame.index for frame in frames] == list(range(len(frames)))


@pytest.mark.parametrize("name", ["mp4", "mov", "matroska", "webm", "avi", "flv"])
def test_sixteen_frames_spread_over_each_container(name: str, clips: dict[str, bytes], grey: Grey) -> None:
    frames, facts = decode(clips[name])
    assert (len(frames), facts.width, facts.height, facts.notices) == (16, 96, 64, ())
    assert facts.duration_s == pytest.approx(4.0, abs=0.11)
    assert facts.fps == pytest.approx(10.0, abs=0.01)
    assert facts.codec == {"mp4": "h264", "matroska": "h264", "webm": "vp8", "flv": "flv1"}.get(name, "mpeg4")
    assert_in_order(frames)
    for frame in frames:
        assert level(frame) == pytest.approx(grey(round(frame.time_s * 10)), abs=5)
    gaps = np.diff([frame.time_s for frame in frames])
    assert gaps.min() > 0.15
    assert gaps.max() < 0.35


@pytest.mark.parametrize("name", ["mp4", "webm", "avi"])
def test_all_frames_of_some_parts(name: str, clips: dict[str, bytes], grey: Grey) -> None:
    frames, facts = decode_video(io.BytesIO(clips[name]), 16, LIMITS, spans=[(0.45, 1.25), (3.0, 3.5)])
    assert [round(frame.time_s, 1) for frame in frames] == [
        0.5,
        0.6,
        0.7,
        0.8,
        0.9,
        1.0,
        1.1,
        1.2,
        *np.arange(30, 35) / 10,
    ]
    assert facts.duration_s == pytest.approx(4.0, abs=0.11)
    assert facts.notices == ()
    for frame in frames:
        assert level(frame) == pytest.approx(grey(round(frame.time_s * 10)), abs=5)


def test_of_a_part_no_more_frames_are_taken_than_were_asked_for(encode_clip: Encode) -> None:
    data = encode_clip("mp4", "libx264", count=120, rate=60)
    frames, _ = decode_video(io.BytesIO(data), 16, LIMITS, spans=[(0.5, 1.5)])
    assert len(frames) == SPAN_FPS
    assert np.diff([frame.time_s for frame in frames]).max() < 0.06


def test_from_a_path(tmp_path: Path, clips: dict[str, bytes]) -> None:
    (tmp_path / "named.wrongly").write_bytes(clips["webm"])
    frames, _ = decode_video(tmp_path / "named.wrongly", 4, LIMITS)
    assert len(frames) == 4


@pytest.mark.parametrize(
    ("container", "codec", "options"),
    [
        ("mp4", "libx264", {"g": "12"}),
        ("mp4", "libx264", {"g": "250"}),
        ("matroska", "libx264", {"g": "50", "bf": "3"}),
        ("flv", "flv", {"g": "30"}),
        ("avi", "mpeg4", {"g": "30"}),
    ],
)
def test_long_clips_are_sought_exactly(
    container: str, codec: str, options: dict[str, str], encode_clip: Encode, grey: Grey
) -> None:
    frames, facts = decode(encode_clip(container, codec, count=600, codec_options=options), frames=5)
    assert facts.duration_s == pytest.approx(60.0, abs=0.2)
    assert [frame.time_s for frame in frames] == pytest.approx([6, 18, 30, 42, 54], abs=0.11)
    for frame in frames:
        assert level(frame) == pytest.approx(grey(round(frame.time_s * 10)), abs=5)


@pytest.mark.parametrize(("seconds", "most", "count"), [(3, 60, 16), (20, 60, 20), (90, 60, 60), (90, 0, 16)])
def test_a_longer_clip_gives_more_frames(seconds: int, most: int, count: int, encode_clip: Encode) -> None:
    data = encode_clip("mp4", "libx264", count=10 * seconds, size=(64, 48))
    frames, facts = decode_video(io.BytesIO(data), 16, LIMITS, most=most)
    assert (len(frames), facts.notices) == (count, ())
    assert_in_order(frames)
    assert np.diff([frame.time_s for frame in frames]).max() < seconds / count + 0.15


def test_many_large_frames_take_no_more_memory(encode_clip: Encode) -> None:
    data = encode_clip("mp4", "libx264", count=64, rate=1, size=(2048, 64))
    few, many = (decode_video(io.BytesIO(data), 16, LIMITS, most=most) for most in (0, 64))
    assert few[0][0].pixels.shape[1] == MAX_VIDEO_SIDE
    assert many[0][0].pixels.shape[1] == pytest.approx(MAX_VIDEO_SIDE / 2**0.5, abs=1)
    assert {few[1].width, many[1].width} == {2048}


def test_costly_long_clips_give_key_frames(encode_clip: Encode, monkeypatch: pytest.MonkeyPatch, grey: Grey) -> None:
    data = encode_clip("mp4", "libx264", count=800, codec_options={"g": "25", "keyint_min": "25", "sc_threshold": "0"})
    exact, _ = decode_video(io.BytesIO(data), 16, LIMITS, most=20)
    monkeypatch.setattr(video, "MAX_DECODED", 96 * 64 * 100)
    cheap, _ = decode_video(io.BytesIO(data), 16, LIMITS, most=20)
    assert len(cheap) == len(exact) == 20
    assert_in_order(cheap)
    assert all(abs(a.time_s - b.time_s) <= 2.5 for a, b in zip(cheap, exact, strict=True))
    assert sum(round(frame.time_s * 10) % 25 == 0 for frame in cheap) >= 19
    for frame in cheap:
        assert level(frame) == pytest.approx(grey(round(frame.time_s * 10)), abs=5)
    few = [frame.time_s for frame in decode(data)[0]]
    monkeypatch.undo()
    assert [frame.time_s for frame in decode(data)[0]] == few  # as ever where only so many are asked for


def test_seeking_decodes_less(encode_clip: Encode, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pictures with and without key frames in between: seeking must leave most frames undecoded."""
    decoded: list[int] = []
    original = video._Reader.next

    def counted(reader: video._Reader) -> object:
        decoded.append(1)
        return original(reader)

    monkeypatch.setattr(video._Reader, "next", counted)
    noise = np.random.default_rng(3).integers(0, 256, (48, 64, 3), np.uint8)
    counts = {}
    for g in ("20", "600"):
        data = encode_clip("mp4", "mpeg4", count=600, size=(64, 48), picture=noise, codec_options={"g": g})
        decoded.clear()
        decode(data, frames=4)
        counts[g] = len(decoded)
    assert counts["20"] < 0.2 * counts["600"]


def undecoded(data: bytes, frames: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Check that leaving frames undecoded changes nothing; returns how many were left out."""
    read: list[int] = []
    original = video._Reader.next

    def counted(reader: video._Reader) -> object:
        read.append(1)
        return original(reader)

    monkeypatch.setattr(video._Reader, "next", counted)
    told: list[Frame] = []
    sparing, facts = decode_video(io.BytesIO(data), frames, LIMITS, on_frame=told.append)
    few = len(read)
    begun = [place for place, frame in enumerate(told) if frame.index == 0]
    assert [id(frame) for frame in told[begun[-1] :]] == [id(frame) for frame in sparing]
    assert len(begun) <= 2
    with monkeypatch.context() as everything:
        everything.setattr(video, "SPARING", frozenset())
        plain, plain_facts = decode(data, frames)
    assert facts == plain_facts
    assert [frame.time_s for frame in sparing] == [frame.time_s for frame in plain]
    for one, other in zip(sparing, plain, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
    return len(read) - 2 * few


@pytest.mark.parametrize("container", ["mp4", "matroska", "flv"])
@pytest.mark.parametrize("options", [{"bf": "3"}, {"bf": "3", "x264-params": "b-pyramid=none:open-gop=1"}, {"bf": "0"}])
def test_frames_that_nothing_needs_stay_undecoded(
    container: str, options: dict[str, str], encode_clip: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode_clip(container, "libx264", count=200, codec_options=options)
    left_out = undecoded(data, 8, monkeypatch)
    assert left_out > 50 if options["bf"] == "3" else left_out == 0


def test_a_varying_rate_with_b_frames_gives_the_same_frames(
    encode_clip: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = [*range(0, 1000, 20), *range(1000, 9000, 100)]
    data = encode_clip("matroska", "libx264", times_ms=times, codec_options={"bf": "3"})
    assert undecoded(data, 8, monkeypatch) > 20


def test_a_damaged_clip_with_b_frames_gives_the_same_frames(
    encode_clip: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (48, 64, 3), np.uint8)
    data = encode_clip("mp4", "libx264", count=200, size=(64, 48), picture=noise, codec_options={"bf": "3", "g": "20"})
    holes = bytearray(data)
    for at in range(len(data) // 5, len(data) // 2, 500):
        holes[at : at + 40] = bytes(40)
    undecoded(bytes(holes), 8, monkeypatch)


def test_variable_frame_rate(encode_clip: Encode, grey: Grey) -> None:
    times = [*range(0, 1000, 20), *range(1000, 9000, 500)]  # 50 frames in one second, then 2 per second
    frames, facts = decode(encode_clip("matroska", "libx264", times_ms=times), frames=8)
    assert len(frames) == 8
    assert_in_order(frames)
    for frame in frames:
        assert level(frame) == pytest.approx(grey(times.index(round(frame.time_s * 1000))), abs=5)
    assert sum(frame.time_s > 1 for frame in frames) >= 6  # spread over time, not over frame numbers
    assert facts.fps == pytest.approx(65 / 8.5, abs=0.1)


def test_without_a_duration_in_the_header(encode_clip: Encode) -> None:
    live = encode_clip("webm", "libvpx", container_options={"live": "1"})
    flv = encode_clip("flv", "flv", container_options={"flvflags": "no_duration_filesize"})
    for data in (live, flv):
        frames, facts = decode(data)
        assert len(frames) == 16
        assert facts.duration_s == pytest.approx(4.0, abs=0.11)
        assert facts.notices == ()
        assert frames[-1].time_s > 3.5


@pytest.mark.parametrize(
    ("rotation", "red_is"), [(0, "left"), (90, "bottom"), (180, "right"), (-90, "top")]
)  # degrees against the clock
def test_rotated_video_is_upright(rotation: int, red_is: str, encode_clip: Encode) -> None:
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:, :24] = (255, 0, 0)
    frames, facts = decode(encode_clip("mp4", "libx264", count=3, rotation=rotation, picture=picture))
    height, width = frames[0].pixels.shape[:2]
    assert (facts.width, facts.height) == (width, height) == ((96, 64) if rotation in (0, 180) else (64, 96))
    edges = {
        "left": frames[0].pixels[height // 2, 3],
        "right": frames[0].pixels[height // 2, -4],
        "top": frames[0].pixels[3, width // 2],
        "bottom": frames[0].pixels[-4, width // 2],
    }
    assert {name for name, pixel in edges.items() if pixel[0] > 200 and pixel[1] < 50} == {red_is}


@pytest.mark.parametrize("name", ["mp4", "matroska", "webm"])
def test_sound_changes_nothing(name: str, encode_clip: Encode) -> None:
    codec = "libvpx" if name == "webm" else "libx264"
    frames, facts = decode(encode_clip(name, codec, sound=True))
    assert len(frames) == 16
    assert facts.duration_s == pytest.approx(4.0, abs=0.11)
    assert facts.notices == ()


@pytest.mark.parametrize("name", ["mp4", "webm", "flv", "avi"])
def test_a_video_of_one_frame(name: str, encode_clip: Encode) -> None:
    codec = {"mp4": "libx264", "webm": "libvpx", "flv": "flv", "avi": "mpeg4"}[name]
    frames, facts = decode(encode_clip(name, codec, count=1))
    assert [(frame.index, frame.time_s) for frame in frames] == [(0, 0.0)]
    assert facts.fps is None
    assert facts.duration_s is not None
    assert 0 <= facts.duration_s <= 0.2


def test_large_frames_are_scaled_down_and_their_size_told(encode_clip: Encode) -> None:
    frames, facts = decode(encode_clip("mp4", "mpeg4", count=2, size=(2880, 640)))
    assert (facts.width, facts.height) == (2880, 640)
    assert frames[0].pixels.shape == (round(640 * MAX_VIDEO_SIDE / 2880), MAX_VIDEO_SIDE, 3)


def test_colours_survive(encode_clip: Encode) -> None:
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:, :48], picture[:, 48:] = (200, 60, 40), (30, 90, 180)
    frames, _ = decode(encode_clip("mp4", "libx264", count=1, picture=picture, codec_options={"crf": "10"}))
    assert np.abs(frames[0].pixels[32, 20].astype(int) - (200, 60, 40)).max() <= 6
    assert np.abs(frames[0].pixels[32, 76].astype(int) - (30, 90, 180)).max() <= 6


@given(st.sets(st.integers(0, 10_000), min_size=1, max_size=300), st.integers(1, 64))
def test_chosen_times_are_distinct_ordered_and_as_many_as_there_are(values: set[int], count: int) -> None:
    times = sorted(values)
    chosen = choose_times(times, count)
    assert len(chosen) == min(count, len(times))
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= values


def test_chosen_times_stand_in_the_middle_of_their_shares() -> None:
    assert choose_times(list(range(100)), 4) == [12, 37, 62, 87]


def test_packets_of_a_stream_that_appears_in_the_middle_are_left_out() -> None:
    coming = [1, 2, None, 3, None, 4]

    class Source:
        def demux(self, stream: object) -> Iterator[int]:
            while coming:
                packet = coming.pop(0)
                if packet is None:
                    raise IndexError("list index out of range")
                yield packet

    assert list(packets_of(Source(), None)) == [1, 2, 3, 4]


@pytest.mark.parametrize("container", ["mp4", "matroska"])
@pytest.mark.parametrize("tracks", [1, 2, 4])
def test_further_video_tracks_are_counted(container: str, tracks: int) -> None:
    out = io.BytesIO()
    with av.open(out, "w", format=container) as sink:
        streams: list[Any] = [sink.add_stream("libx264", rate=10) for _ in range(tracks)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(8):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 20 * index, np.uint8))
                frame.pts = index
                sink.mux(stream.encode(frame))
        for stream in streams:
            sink.mux(stream.encode(None))
    frames, facts = decode(out.getvalue())
    assert (len(frames), facts.others) == (8, tracks - 1)
    told = [notice.text for notice in facts.as_notices() if notice.code == "tracks_left_out"]
    assert len(told) == (tracks > 1)
    assert tracks < 4 or "3 more video tracks" in told[0]
