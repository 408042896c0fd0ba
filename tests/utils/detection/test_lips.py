"""Lips and voice: a mouth that opens with the sound fits it, one that does not does not, and little is never judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest

from utils.base_weights import MESH_FILE
from utils.detection.closeup import look_closer
from utils.detection.lips import (
    FaceMesh,
    LipFit,
    Watched,
    choose_spans,
    correlations,
    fit_lips,
    follow_mouth,
    interpret,
)
from utils.detection.pipeline import Analyser, examine
from utils.errors import WeightsCorruptError, WeightsMissingError
from utils.faces.detector import CenterFaceDetector
from utils.speech.judge import CHUNK
from utils.speech.spectrogram import RATE
from utils.types import Floats, Frame, Pixels

SECONDS, FPS = 6, 25
OTHER = 11  # a seed whose rhythm is another
SPANS = ((0.0, 3.0), (3.0, 6.0))


def drive(seed: int, step_s: float = 1 / FPS) -> Floats:
    """How far a mouth is open, 0..1, for six seconds: words of two to four syllables, and pauses."""
    rng = np.random.default_rng(seed)
    heights = [
        h for _ in range(20) for h in [*np.ravel([(v, 0.2) for v in rng.uniform(0.5, 1, rng.integers(2, 5))]), 0, 0, 0]
    ]
    marks = np.cumsum(rng.uniform(0.08, 0.16, len(heights)))
    return np.interp(np.arange(0, SECONDS, step_s), marks, heights).astype(np.float32)


def sound_of(seed: int) -> Floats:
    """Noise that is as loud as the mouth of this seed is open."""
    noise = np.random.default_rng(0).normal(0, 0.1, SECONDS * RATE)
    return np.clip(noise * (0.02 + drive(seed, 1 / RATE)[: len(noise)]), -1, 1).astype(np.float32)


def watched(seed: int, late_s: float = 0.0) -> Watched:
    times = np.arange(SECONDS * FPS) / FPS
    return Watched(times, np.interp(times - late_s, times, drive(seed)).astype(np.float32), SPANS)


def speaking(analyser: Analyser, share: float = 1.0) -> Analyser:
    """An analyser whose detector of voices hears speech in the first part of every sound."""

    def spoken(samples: Floats) -> Any:
        return np.arange(len(samples) // CHUNK) < share * (len(samples) // CHUNK)

    return replace(analyser, speech=SimpleNamespace(spoken=spoken))


def speak(photo: Pixels, faces: CenterFaceDetector, openings: Floats) -> list[Pixels]:
    """The portrait with its lower lip and jaw drawn down, one picture for each opening."""
    (left, line), (right, _) = faces.detect(photo)[0].landmarks[3:].round()
    rows, columns = np.mgrid[:288, : photo.shape[1]].astype(np.float32)
    away, below, out = (columns - (left + right) / 2) / (right - left) * 2, rows - line, []
    for opening in openings:
        gap = 16 * float(opening)
        down = gap * np.clip(1 - (away / 1.6) ** 2, 0, 1) * np.clip(1 - (below - gap) / 80, 0, 1)
        source = np.where(below > 0, np.maximum(line, rows - down), rows).astype(np.float32)
        picture = cv2.remap(photo, columns, source, cv2.INTER_LINEAR)
        picture[(below > 0) & (below < gap * np.clip(1 - away**2, 0, 1))] = (50, 15, 15)
        out.append(np.asarray(picture, np.uint8))
    return out


@pytest.fixture(scope="module")
def mesh(base_folder: Path) -> FaceMesh:
    return FaceMesh(base_folder, threads=1)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory, photo: Pixels, face_detector: CenterFaceDetector) -> Path:
    """Six seconds of a mouth that speaks as `drive(1)` says, with the sound of it."""
    path = tmp_path_factory.mktemp("lips") / "speaks.mp4"
    with av.open(str(path), "w", format="mp4") as sink:
        video: Any = sink.add_stream("mpeg4", rate=FPS)
        video.width, video.height, video.pix_fmt, video.bit_rate = 512, 288, "yuv420p", 4_000_000
        audio: Any = sink.add_stream("aac", rate=RATE, layout="mono")
        for picture in speak(photo, face_detector, drive(1)):
            sink.mux(video.encode(av.VideoFrame.from_ndarray(picture)))
        sink.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(sound_of(1)[None], "fltp", "mono")
        frame.sample_rate = RATE
        parts = av.AudioResampler("fltp", "mono", RATE, 1024)
        for part in [*parts.resample(frame), *parts.resample(None)]:
            sink.mux(audio.encode(part))
        sink.mux(audio.encode(None))
    return path


def test_own_sound_fits_and_another_does_not() -> None:
    own, other = (interpret(SPANS, correlations(watched(1), sound_of(seed))) for seed in (1, OTHER))
    assert (own.code, own.spans) == ("fits", SPANS)
    assert own.correlation is not None
    assert own.correlation > 0.6
    assert other.code == "does_not_fit"
    assert other.correlation is not None
    assert other.correlation < 0.15


@pytest.mark.parametrize("late_s", [-0.16, 0.0, 0.12])
def test_the_lag_is_found(late_s: float) -> None:
    found = interpret(SPANS, correlations(watched(1, late_s), sound_of(1)))
    assert found.code == "fits"
    assert found.lag_s == pytest.approx(late_s, abs=0.05)


def test_a_lag_beyond_what_people_overlook_fits_no_more() -> None:
    assert interpret(SPANS, correlations(watched(1, 0.7), sound_of(1))).code == "does_not_fit"


def test_one_part_is_too_little_to_say_that_it_does_not_fit() -> None:
    one = replace(watched(1), spans=SPANS[:1])
    assert interpret(one.spans, correlations(one, sound_of(OTHER))).code == "undecided"


def test_a_part_without_the_mouth_does_not_count() -> None:
    seen = watched(1)
    seen.openings[80:130] = np.nan
    found = interpret(SPANS, correlations(seen, sound_of(1)))
    assert found.spans == SPANS[:1]
    seen.openings[:] = np.nan
    assert interpret(SPANS, correlations(seen, sound_of(1))) == LipFit(
        "not_measured", "The mouth is not seen well enough while speech is heard."
    )


def test_parts_are_those_with_most_speech_where_the_person_is_seen() -> None:
    chunk_s = CHUNK / RATE
    spoken = np.zeros(round(30 / chunk_s), bool)
    for first, last in ((2, 5), (11, 15), (20, 30)):
        spoken[round(first / chunk_s) : round(last / chunk_s)] = True
    everywhere = np.arange(0.5, 30, 1.0).tolist()
    assert choose_spans(spoken, 30.0, everywhere, 1.0) == ((2.0, 5.0), (11.0, 14.0), (20.0, 23.0))
    assert choose_spans(spoken, 30.0, [t for t in everywhere if t > 15], 1.0) == (
        (20.0, 23.0),
        (23.0, 26.0),
        (26.0, 29.0),
    )
    assert choose_spans(spoken[:60], 2.4, [0.5, 1.5], 1.0) == ()
    assert choose_spans(np.ones(84, bool), 2.7, [0.5, 1.5, 2.5], 1.0) == ((0.0, 2.7),)
    assert choose_spans(np.zeros(900, bool), 30.0, everywhere, 1.0) == ()


def test_openings_follow_the_mouth(mesh: FaceMesh, photo: Pixels, face_detector: CenterFaceDetector) -> None:
    wanted = np.tile(np.array([0, 0.5, 1, 0.5], np.float32), 4)
    frames = [Frame(i, i / FPS, picture) for i, picture in enumerate(speak(photo, face_detector, wanted))]
    (face, *_) = face_detector.detect(frames[0].pixels)
    half = replace(face, box=face.box.scaled(0.5), landmarks=face.landmarks / 2)
    openings = follow_mouth(frames, [(0.0, half)], 2.0, mesh, 1.0)
    assert np.corrcoef(openings, wanted)[0, 1] > 0.85
    assert 0 <= openings.min() < 0.1 < openings.max() < 0.5


def test_no_mouth_where_the_face_is_gone_or_was_not_seen(
    mesh: FaceMesh, photo: Pixels, face_detector: CenterFaceDetector
) -> None:
    (face, *_) = face_detector.detect(photo)
    grey = np.full_like(photo, 127)
    pictures = [photo, photo, grey, photo, photo]
    frames = [Frame(i, float(i), picture) for i, picture in enumerate(pictures)]
    assert np.isfinite(follow_mouth(frames, [(0.0, face), (4.0, face)], 1.0, mesh, 1.0)).tolist() == [
        True, True, False, True, True,
    ]  # fmt: skip
    assert not np.isfinite(follow_mouth(frames[2:4], [(0.0, face)], 1.0, mesh, 1.0)).any()


def test_a_clip_is_compared_with_its_sound(analyser: Analyser, film: Path) -> None:
    closeup = look_closer(film, speaking(analyser), 0).to_dict()
    assert closeup["lips"]["code"] == "fits"
    assert [round(t) for span in closeup["lips"]["spans"] for t in span] == [0, 3, 3, 6]
    people = examine(film, speaking(analyser), keep_pixels=True, keep_sound=True)
    exchanged = replace(people.media, samples=sound_of(OTHER))
    found = fit_lips(film, speaking(analyser), people.judged[0].track, exchanged)
    assert found is not None
    assert found.code == "does_not_fit"


def test_without_sound_there_is_nothing_to_say(analyser: Analyser, film: Path) -> None:
    people = examine(film, speaking(analyser), keep_pixels=True, keep_sound=True)
    track = people.judged[0].track
    assert fit_lips(film, speaking(analyser), track, replace(people.media, samples=None)) is None
    assert fit_lips(film, analyser, track, people.media) is None
    little = fit_lips(film, speaking(analyser, 0.2), track, people.media)
    assert little is not None
    assert (little.code, little.correlation) == ("not_measured", None)


def test_mesh_that_is_missing_or_damaged_is_told(base_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissingError, match=MESH_FILE):
        FaceMesh(tmp_path)
    (tmp_path / MESH_FILE).write_bytes((base_folder / MESH_FILE).read_bytes()[:-1] + b"x")
    with pytest.raises(WeightsCorruptError, match=MESH_FILE):
        FaceMesh(tmp_path)
