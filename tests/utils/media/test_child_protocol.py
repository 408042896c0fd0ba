"""The wire between child and parent: what is sent arrives, and no lie of the child gets through."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.errors import DecoderCrashedError, MediaError, MediaTooLongError, TelltaleError
from utils.media import child_protocol
from utils.media.child_protocol import (
    MAGIC,
    MAX_HEADER_BYTES,
    BrokenAnswerError,
    CopyWriter,
    Expected,
    read_answer,
    read_copy,
    read_level,
)
from utils.media.limits import MAX_VIDEO_SIDE, Facts, MediaLimits
from utils.types import Frame, MediaKind

VIDEO = Expected(MediaKind.VIDEO, 3, MediaLimits(max_megapixels=1.0, max_duration_s=10.0))
IMAGE = Expected(MediaKind.IMAGE, 1, MediaLimits(max_megapixels=1.0))

GOOD_VIDEO: dict[str, Any] = {
    "width": 50, "height": 40, "duration_s": 2.0, "fps": 10.0, "codec": "h264", "notices": [],
}  # fmt: skip
GOOD_IMAGE: dict[str, Any] = {
    "width": 50, "height": 40, "duration_s": None, "fps": None, "codec": None, "notices": [],
}  # fmt: skip


def sent(header: Any, pixels: bytes = b"") -> io.BytesIO:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return io.BytesIO(MAGIC + struct.pack("<I", len(text)) + text + pixels)


def frame(index: Any = 0, height: Any = 40, width: Any = 50, time_s: Any = 0.0) -> bytes:
    return sent({"frame": [index, height, width, time_s]}, bytes(40 * 50 * 3)).getvalue()


def answer(facts: Any, *frames: bytes) -> io.BytesIO:
    return io.BytesIO(b"".join(frames or (frame(),)) + sent(facts).getvalue())


def test_frames_are_told_at_once_and_arrive_bit_for_bit() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (2, 40, 50, 3), np.uint8)
    frames = [Frame(i, i * 0.5, np.rot90(noise[i], 1)) for i in range(2)]  # rotated: not contiguous
    facts = Facts(50, 40, 2.0, 10.0, "h264", ("truncated",), 2)
    pipe = io.BytesIO()
    for each in (frames[0], *frames):  # decoding began anew after the first
        child_protocol.write_frame(pipe, each)
    child_protocol.write_facts(pipe, facts)
    pipe.seek(0)
    told: list[Frame] = []
    received, known = read_answer(pipe, VIDEO, told.append)
    assert known == facts
    assert [each.index for each in told] == [0, 0, 1]
    for before, after, heard in zip(frames, received, told[1:], strict=True):
        assert (before.index, before.time_s) == (after.index, after.time_s)
        assert (before.pixels == after.pixels).all()
        assert after is heard


def test_an_error_may_follow_frames() -> None:
    pipe = io.BytesIO()
    child_protocol.write_frame(pipe, Frame(0, 0.0, np.zeros((40, 50, 3), np.uint8)))
    child_protocol.write_error(pipe, MediaTooLongError("It lasts."))
    pipe.seek(0)
    with pytest.raises(MediaTooLongError):
        read_answer(pipe, VIDEO)


@pytest.mark.parametrize(
    "untrusted",
    [
        frame(1), frame(True), frame("0"), frame(None), frame(-1), frame(0, 0), frame(0, 40, MAX_VIDEO_SIDE + 1),
        frame(0, "40"), frame(0, 40, 50, -1.0), frame(0, 40, 50, 11.5), frame(0, 40, 50, float("nan")),
        frame() + frame(2, time_s=0.5), frame() + frame(1, time_s=0.0), frame() + frame() + frame(),
        frame(time_s=1.0) + frame(1, time_s=0.5), frame().replace(b"0.0]", b"1" + b"0" * 400 + b"]"),
        b"".join(frame(i, time_s=0.5 * i) for i in range(4)),
        sent({"frame": [0, 40, 50]}, bytes(6000)).getvalue(), sent({"frame": {}}, bytes(6000)).getvalue(),
        sent(GOOD_VIDEO).getvalue(), frame() + sent(GOOD_VIDEO, b"more").getvalue(),
    ],
)  # fmt: skip
def test_lies_about_frames(untrusted: bytes) -> None:
    with pytest.raises(DecoderCrashedError, match="breaks the rules"):
        read_answer(io.BytesIO(untrusted), VIDEO)


def test_sound_has_no_frame_and_a_picture_is_no_larger_than_may_be() -> None:
    with pytest.raises(DecoderCrashedError, match="sound with a picture"):
        read_answer(io.BytesIO(frame()), Expected(MediaKind.AUDIO, 1, VIDEO.limits))
    with pytest.raises(DecoderCrashedError, match="a frame of 2000 x 2000"):
        read_answer(io.BytesIO(frame(0, 2000, 2000)), IMAGE)


def test_the_good_headers_pass() -> None:
    assert len(read_answer(answer(GOOD_VIDEO, frame(), frame(1, time_s=0.5)), VIDEO)[0]) == 2
    assert len(read_answer(answer(GOOD_IMAGE), IMAGE)[0]) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"width": 0}, {"width": -5}, {"width": True}, {"width": 50.0}, {"width": None}, {"width": 10**9},
        {"width": 2000, "height": 2000}, {"height": 8},
        {"duration_s": None}, {"duration_s": -1.0}, {"duration_s": 11.0}, {"duration_s": float("nan")},
        {"fps": 0.0}, {"fps": "10"}, {"fps": float("inf")},
        {"codec": None}, {"codec": "x" * 33}, {"codec": "<b>"},
        {"notices": ["unknown"]}, {"notices": "truncated"}, {"notices": ["truncated"] * 9}, {"notices": None},
    ],
)  # fmt: skip
def test_lies_about_a_video(change: dict[str, Any]) -> None:
    with pytest.raises(DecoderCrashedError, match="breaks the rules"):
        read_answer(answer(GOOD_VIDEO | change), VIDEO)


@pytest.mark.parametrize(
    ("change", "frames"),
    [
        ({"duration_s": 1.0}, [frame()]),
        ({}, [frame(0, 50, 40)]),
        ({}, [frame(0, 40, 50, 1.0)]),
        ({}, [frame(), frame(1, 40, 50, 1.0)]),
    ],
)
def test_lies_about_a_picture(change: dict[str, Any], frames: list[bytes]) -> None:
    two = Expected(MediaKind.IMAGE, 2, IMAGE.limits)
    with pytest.raises(DecoderCrashedError):
        read_answer(answer(GOOD_IMAGE | change, *frames), two)


def test_more_bytes_than_announced() -> None:
    with pytest.raises(DecoderCrashedError, match="more bytes"):
        read_answer(io.BytesIO(answer(GOOD_IMAGE).getvalue() + b"x"), IMAGE)


def test_fewer_bytes_than_announced() -> None:
    with pytest.raises(BrokenAnswerError):
        read_answer(io.BytesIO(frame()[:-1]), IMAGE)


@pytest.mark.parametrize(
    "untrusted",
    [
        b"HTTP/1.1 200 OK and so on",
        MAGIC + struct.pack("<I", MAX_HEADER_BYTES + 1) + bytes(MAX_HEADER_BYTES + 1),
        MAGIC + struct.pack("<I", 4) + b"\xff\xfe{}",
        MAGIC + struct.pack("<I", 2) + b"[]",
        MAGIC + struct.pack("<I", 60_000) + b"[" * 60_000,
    ],
)
def test_no_answer_at_all(untrusted: bytes) -> None:
    with pytest.raises(DecoderCrashedError):
        read_answer(io.BytesIO(untrusted), IMAGE)


def test_errors_arrive_as_what_they_were() -> None:
    pipe = io.BytesIO()
    child_protocol.write_error(pipe, MediaTooLongError("The video lasts 700 seconds."))
    pipe.seek(0)
    with pytest.raises(MediaTooLongError, match="700 seconds"):
        read_answer(pipe, VIDEO)


@pytest.mark.parametrize("code", ["internal", "weights", "unknown", 7, None, ["media_corrupt"]])
def test_errors_that_a_decoder_may_not_report(code: Any) -> None:
    with pytest.raises(DecoderCrashedError, match="unknown error code"):
        read_answer(sent({"error": code, "detail": "x"}), IMAGE)


def test_sentences_of_errors_are_cleaned_and_cut() -> None:
    with pytest.raises(MediaError) as caught:
        read_answer(sent({"error": "media_corrupt", "detail": "a\x1b[2J\nb" + "c" * 1000}), IMAGE)
    assert caught.value.detail.startswith("a[2Jb")
    assert len(caught.value.detail) <= child_protocol.MAX_DETAIL


def test_levels_arrive() -> None:
    pipe = io.BytesIO()
    child_protocol.write_level(pipe, ("cpu_limit", "no_network"))
    pipe.seek(0)
    assert read_level(pipe) == ("cpu_limit", "no_network")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def test_texts_grow_to_no_more_than_four_bytes_a_character() -> None:
    texts = ["\U0001f600" * 140] * 110
    out = io.BytesIO()
    child_protocol.write_header(out, {"texts": [*texts, "\ud800"]})
    assert child_protocol.read_header(io.BytesIO(out.getvalue())) == {"texts": [*texts, "?"]}


@given(st.dictionaries(st.sampled_from([*GOOD_VIDEO, "error", "detail", "frame", "samples"]), JSON), st.booleans())
def test_any_header_gives_frames_or_one_of_our_errors(change: dict[str, Any], is_video: bool) -> None:
    good, expected = (GOOD_VIDEO, VIDEO) if is_video else (GOOD_IMAGE, IMAGE)
    try:
        frames, _ = read_answer(answer(good | change), expected)
    except (TelltaleError, BrokenAnswerError) as error:
        assert str(error)  # noqa: PT017 - both outcomes are right
    else:
        assert len(frames) <= expected.frames


@pytest.mark.parametrize("level", [b'{"level": 5}', b'{"level": [1]}', b'{"level": null}', b"{}", b'{"level": "abc"}'])
def test_a_level_that_is_none_is_refused(level: bytes) -> None:
    with pytest.raises(DecoderCrashedError, match="no names"):
        read_level(io.BytesIO(MAGIC + len(level).to_bytes(4, "little") + level))


@pytest.mark.parametrize("number", ["1" + "0" * 400, "1e999", "-1e999", "NaN", "true"])
@pytest.mark.parametrize("key", ["duration_s", "fps"])
def test_numbers_that_no_float_holds_are_refused(key: str, number: str) -> None:
    text = json.dumps({**GOOD_VIDEO, key: "HERE"}).replace('"HERE"', number)
    with pytest.raises(DecoderCrashedError):
        read_answer(answer(text.encode()), VIDEO)


def test_a_copy_arrives_whatever_order_its_pieces_are_written_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_protocol, "PIECE_BYTES", 7)
    pipe, target, kept = io.BytesIO(), io.BytesIO(), io.BytesIO()
    writer = CopyWriter(pipe)
    for file in (writer, kept):
        file.write(b"head and a long rest")
        file.seek(0)
        file.write(b"HEAD")
        file.seek(3, 1)
        assert file.tell() == 7
        file.write(b"-")
        file.seek(0, 2)
        file.write(b" and an end")
    writer.finish()
    pipe.seek(0)
    read_copy(pipe, target, 100)
    assert target.getvalue() == kept.getvalue()


def piece(at: Any, content: bytes, size: Any = None) -> bytes:
    return sent({"at": at, "size": len(content) if size is None else size}, content).getvalue()


@pytest.mark.parametrize(
    "pieces",
    [
        piece(-1, b"x"), piece(1.0, b"x"), piece(True, b"x"), piece(None, b"x"), piece(10**30, b"x"),
        piece(95, b"123456"), piece(0, b""), piece(0, b"x", -1), piece(0, b"x", 10**9), piece(0, b"x", "1"), b"",
        piece(0, b"xx") + sent({"copied": 3}).getvalue(), sent({"copied": 0}).getvalue(),
        piece(0, b"xx") + sent({"copied": 2}).getvalue() + b"more",
        sent({"at": 0}).getvalue(), sent({"level": []}).getvalue(), sent({"error": "unknown", "detail": ""}).getvalue(),
    ],
)  # fmt: skip
def test_a_copy_that_breaks_the_rules_is_refused(pieces: bytes) -> None:
    target = io.BytesIO()
    with pytest.raises((DecoderCrashedError, BrokenAnswerError)):
        read_copy(io.BytesIO(pieces), target, 100)
    assert len(target.getvalue()) <= 100


def test_a_copy_may_fail_after_its_first_pieces() -> None:
    pipe = io.BytesIO(piece(0, b"half") + sent({"error": "media_corrupt", "detail": "A packet."}).getvalue())
    with pytest.raises(MediaError, match="A packet"):
        read_copy(pipe, io.BytesIO(), 100)


@pytest.mark.parametrize("others", [-1, 1.5, "2", True, None, 10**6])
def test_a_number_of_tracks_that_is_none_is_refused(others: Any) -> None:
    with pytest.raises(DecoderCrashedError, match="tracks that are none"):
        read_answer(answer({**GOOD_VIDEO, "others": others}), VIDEO)
