"""Sound: every format to the same samples, limits that no header can talk away, damage that costs what it must."""

from __future__ import annotations

import io
import wave
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from tests.hostile.attacks import seeds
from tests.utils.media.films import KINDS, add_video, noise, told
from utils.config import MediaSettings, SandboxSettings
from utils.errors import MediaCorruptError, MediaError, MediaTooLongError, UnsupportedMediaError
from utils.media import audio, decode_media
from utils.media.limits import Facts, MediaLimits
from utils.media.sniff import sniff
from utils.types import SAMPLE_RATE, Floats, MediaKind, SoundInfo

LIMITS = MediaLimits()


def decoded(data: bytes, limits: MediaLimits = LIMITS) -> tuple[Floats, Facts]:
    pieces: list[Floats] = []
    facts = audio.decode_recording(io.BytesIO(data), sniff(data), limits, pieces.append)
    return np.concatenate(pieces), facts


def pitch_hz(samples: Floats) -> float:
    return float(np.abs(np.fft.rfft(samples)).argmax() * SAMPLE_RATE / len(samples))


@pytest.mark.parametrize("name", seeds.RECORDINGS)
def test_every_format_comes_in_as_the_same_sound(name: str, tmp_path: Path) -> None:
    (tmp_path / "named.wrongly").write_bytes(seeds.recording(name))
    media = decode_media(tmp_path / "named.wrongly", MediaSettings(), SandboxSettings())
    info, samples = media.info, media.samples
    assert info.kind is MediaKind.AUDIO
    assert info.mime.startswith("audio/")
    assert (info.width, info.height, info.fps, media.frames) == (0, 0, None, ())
    assert info.sound is not None
    assert info.sound.rate_hz == seeds.RECORDINGS[name][2]
    assert info.codec == info.sound.codec
    assert samples is not None
    assert samples.dtype == np.float32
    assert info.duration_s == pytest.approx(len(samples) / SAMPLE_RATE)
    assert info.duration_s == pytest.approx(2.0, abs=0.06)
    assert pitch_hz(samples) == pytest.approx(seeds.PITCH_HZ, abs=1)
    assert np.abs(samples).max() == pytest.approx(0.5, abs=0.14)
    assert media.notices == ()


def test_loud_channels_that_agree_do_not_clip() -> None:
    tone = seeds.chord(16000) * 1.9
    mono, _ = decoded(seeds.recording("wav-float", tone))
    stereo, facts = decoded(seeds.recording("wav-float", tone, layout="stereo"))
    assert facts.sound is not None
    assert facts.sound.channels == 2
    np.testing.assert_allclose(stereo, mono, atol=1e-6)


def test_channels_that_cancel_each_other_are_heard_by_the_loudest() -> None:
    tone = seeds.chord(16000)
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((2, 2, 16000, 0, "NONE", ""))
        file.writeframes((np.stack([tone, -1.01 * tone], 1) * 32000).astype("<i2").tobytes())
    np.testing.assert_allclose(decoded(out.getvalue())[0], -0.986 * tone, atol=1e-3)


def test_sound_leaves_by_the_second_and_not_by_the_packet() -> None:
    pieces: list[Floats] = []
    data = seeds.recording("amr", seeds.chord(8000, 30.0))
    facts = audio.decode_recording(io.BytesIO(data), sniff(data), LIMITS, pieces.append)
    assert facts.duration_s == pytest.approx(30, abs=0.06)
    assert len(pieces) <= 31


def test_samples_beyond_the_range_are_clipped_and_no_numbers_refused() -> None:
    tone = seeds.chord(16000) * 6
    assert np.abs(decoded(seeds.recording("wav-float", tone))[0]).max() == 1
    tone[100] = np.nan
    with pytest.raises(MediaCorruptError, match="no numbers"):
        decoded(seeds.recording("wav-float", tone))


def test_the_limit_counts_samples_and_believes_no_header() -> None:
    limits = MediaLimits(max_duration_s=1.0)
    for name in ("wav", "flac", "mp3", "oga", "amr", "webm-alone", "m4a"):
        with pytest.raises(MediaTooLongError):
            decoded_alone(seeds.recording(name), limits)
    lying = bytearray(seeds.recording("flac"))
    lying[22:26] = bytes(4)  # STREAMINFO: number of samples unknown
    lying[21] &= 0xF0
    with pytest.raises(MediaTooLongError):
        decoded(bytes(lying), limits)


def decoded_alone(data: bytes, limits: MediaLimits) -> None:
    audio.decode_recording(io.BytesIO(data), sniff(data), limits, lambda samples: None)


@pytest.mark.parametrize("name", ["wav", "flac", "m4a"])
def test_a_recording_without_its_end_is_told(name: str) -> None:
    data = seeds.recording(name, seeds.chord(seeds.RECORDINGS[name][2], 6.0))
    if name == "m4a":  # its index stands at the end: cut it off and nothing is left
        with pytest.raises(MediaCorruptError, match="no index"):
            decoded(data[: len(data) // 2])
        return
    samples, facts = decoded(data[: len(data) // 2])
    assert facts.notices == ("truncated",)
    assert 1.0 < len(samples) / SAMPLE_RATE < 5.0
    assert pitch_hz(samples) == pytest.approx(seeds.PITCH_HZ, abs=1)


def test_noise_in_the_middle_costs_only_what_it_covers() -> None:
    data = bytearray(seeds.recording("mp3", seeds.chord(44100, 8.0)))
    data[len(data) // 2 : len(data) // 2 + 3000] = np.random.default_rng(0).integers(0, 256, 3000, np.uint8).tobytes()
    samples, _ = decoded(bytes(data))
    assert 6.5 < len(samples) / SAMPLE_RATE < 8.2


def test_what_holds_no_sound_is_refused() -> None:
    for data in (b"fLaC" + bytes(100), b"ID3" + bytes(500), b"#!AMR\n", seeds.recording("oga")[:200]):
        with pytest.raises(MediaError) as refused:
            decoded(data)
        assert refused.value.code in ("media_corrupt", "unsupported_media")
    with pytest.raises(UnsupportedMediaError, match="no sound"):
        audio.decode_recording(io.BytesIO(seeds.clip("mp4")), sniff(seeds.clip("mp4")), LIMITS, lambda samples: None)


@pytest.mark.parametrize(
    "kind", ["MP4 H.264", "MOV MPEG-4", "Matroska MPEG-2", "WebM VP8", "AVI Motion JPEG", "FLV H.264"]
)
def test_a_video_comes_with_its_sound_when_asked(kind: str, tmp_path: Path) -> None:
    (tmp_path / "film").write_bytes(told(kind))
    settings, sandbox = MediaSettings(), SandboxSettings()
    mute = decode_media(tmp_path / "film", settings, sandbox)
    heard = decode_media(tmp_path / "film", settings, sandbox, sound=True)
    assert heard.info.kind is MediaKind.VIDEO
    assert mute.samples is None
    assert mute.info.sound is not None
    assert heard.info.sound is not None
    assert heard.samples is not None
    assert replace(heard.info.sound, duration_s=0.0) == mute.info.sound
    assert heard.info.sound.duration_s == pytest.approx(len(heard.samples) / SAMPLE_RATE) == pytest.approx(2, abs=0.1)
    assert [np.array_equal(a.pixels, b.pixels) for a, b in zip(heard.frames, mute.frames, strict=True)] == [True] * 16
    assert KINDS[kind][2].removeprefix("lib")[:3] in heard.info.sound.codec


def test_a_mute_video_has_no_sound(tmp_path: Path) -> None:
    (tmp_path / "film").write_bytes(seeds.clip("mp4"))
    media = decode_media(tmp_path / "film", MediaSettings(), SandboxSettings(), sound=True)
    assert (media.samples, media.info.sound, media.notices) == (None, None, ())


@pytest.mark.parametrize("muxer", ["mp4", "matroska", "mpegts"])
@pytest.mark.parametrize("late_s", [-0.4, 0.0, 0.4, 40.0])
def test_sound_lies_where_it_does_beside_the_frames(muxer: str, late_s: float, tmp_path: Path) -> None:
    """A click one second behind its beginning; a start that is far away is taken for damage."""
    click = np.zeros(2 * SAMPLE_RATE, np.float32)
    click[SAMPLE_RATE:][:800] = 0.8
    with av.open(str(tmp_path / "film"), "w", format=muxer) as sink:
        video, sound = add_video(sink, "mpeg4"), sink.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(click[None], "fltp", "mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, 0
        resampler = av.AudioResampler("fltp", "mono", SAMPLE_RATE, 1024)
        packets = noise(video, 20)
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            packets += sound.encode(piece)
        for packet in filter(lambda packet: packet.dts is not None, packets):
            moved_s = 2.0 + (late_s if packet.stream is sound else 0.0)
            packet.pts += round(moved_s / packet.time_base)
            packet.dts += round(moved_s / packet.time_base)
            sink.mux(packet)
    media = decode_media(tmp_path / "film", MediaSettings(), SandboxSettings(), sound=True)
    assert media.samples is not None
    found = np.flatnonzero(np.abs(media.samples) > 0.4)[0] / SAMPLE_RATE
    assert found == pytest.approx(1.0 + (late_s if late_s < 40 else 0.0), abs=0.08)
    assert [notice.code for notice in media.notices] == []


def test_sound_that_cannot_be_decoded_costs_a_notice_and_not_the_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "film"), "w", format="mov") as sink:
        video, sound = add_video(sink, "mpeg4"), sink.add_stream("pcm_f32le", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.full((1, 16000), np.nan, np.float32), "flt", "mono")
        frame.sample_rate = 16000
        sink.mux([*noise(video, 20), *sound.encode(frame)])
    media = decode_media(tmp_path / "film", MediaSettings(), SandboxSettings(), sound=True)
    assert len(media.frames) == 16
    assert media.samples is None
    assert media.info.sound == SoundInfo(codec="pcm_f32le", rate_hz=16000, channels=1)
    assert [notice.code for notice in media.notices] == ["sound_damaged"]


@pytest.mark.parametrize(("rate", "layout"), [(22050, "mono"), (44100, "stereo")])
def test_a_form_that_changes_in_the_middle_is_followed(rate: int, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = seeds.recording("aac")
    monkeypatch.setitem(seeds.RECORDINGS, "aac", ("adts", "aac", rate))
    samples, _ = decoded(first + seeds.recording("aac", layout=layout))
    assert len(samples) / SAMPLE_RATE == pytest.approx(4.05, abs=0.15)
    assert pitch_hz(samples[-SAMPLE_RATE:]) == pytest.approx(seeds.PITCH_HZ, abs=1.5)


def test_frames_that_cannot_be_mixed_end_a_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def refuse(_: object, frame: object) -> None:
        if frame is not None:
            tried.append(frame)
            raise av.error.InvalidDataError(1, "not to be mixed")

    data = seeds.recording("aac")
    monkeypatch.setattr("utils.media.packets.MAX_BROKEN", 5)
    monkeypatch.setattr("utils.media.audio._Mixer.add", refuse)
    with pytest.raises(MediaCorruptError):
        decoded(data)
    assert len(tried) == 6
