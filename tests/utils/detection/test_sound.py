"""Recordings and videos with sound through the whole analysis, with tiny networks of faces and of speech."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from tests.hostile.attacks import seeds
from tests.speech_fixtures import speech_version, voice
from utils.config import Settings
from utils.detection.batch import analyse_files
from utils.detection.pipeline import Analyser, analyse, load_analyser
from utils.detection.processor import compile_graph
from utils.errors import WeightsCorruptError, WeightsMissingError
from utils.feedback.feature_set import CachedItem
from utils.feedback.items import NO_SPEECH, prepare_faces, prepare_voice
from utils.feedback.quarantine import VOICE
from utils.feedback.versions import publish_candidate
from utils.types import Media, MediaKind, Outcome, Pixels
from utils.weights import CARD_FILE, CURRENT, SPEECH_FOLDER, current_speech, set_current

SHIFT = 8.0
"""Added to the tiny network's logit: so large that every voice is called fake."""


def film(path: Path, picture: Pixels, sound: np.ndarray | None) -> Path:
    with av.open(str(path), "w", format="mp4") as sink:
        video: Any = sink.add_stream("mpeg4", rate=10)
        video.height, video.width = picture.shape[:2]
        video.pix_fmt, video.bit_rate = "yuv420p", 2_000_000
        audio: Any = None if sound is None else sink.add_stream("aac", rate=16000, layout="mono")
        for shift in range(20):
            moved = np.ascontiguousarray(np.roll(picture, 3 * shift, 1))
            sink.mux(video.encode(av.VideoFrame.from_ndarray(moved)))
        sink.mux(video.encode(None))
        if sound is not None:
            frame = av.AudioFrame.from_ndarray(sound[None], "fltp", "mono")
            frame.sample_rate = 16000
            parts = av.AudioResampler("fltp", "mono", 16000, 1024)
            for part in [*parts.resample(frame), *parts.resample(None)]:
                sink.mux(audio.encode(part))
            sink.mux(audio.encode(None))
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, publish_tiny: Callable[..., Path]) -> Path:
    """A version of faces, and one of speech that calls every voice fake."""
    folder = publish_tiny(tmp_path_factory.mktemp("sound") / "trained_models")
    (folder / SPEECH_FOLDER).mkdir()
    speech_version(folder / SPEECH_FOLDER, shift=SHIFT)
    return folder


@pytest.fixture(scope="module")
def analyser(root: Path, settings_for: Callable[..., Settings]) -> Analyser:
    return load_analyser(settings_for(root))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, photo: Pixels) -> Path:
    folder = tmp_path_factory.mktemp("media")
    for name in ("mp3", "oga", "webm-alone", "wav-float"):
        rate = seeds.RECORDINGS[name][2]
        spoken = cv2.resize(voice(3.0)[None], (rate * 3, 1), interpolation=cv2.INTER_LINEAR)[0]
        (folder / name).write_bytes(seeds.recording(name, spoken))
    (folder / "tone").write_bytes(seeds.recording("mp3"))
    small = cv2.resize(photo, (256, 256), interpolation=cv2.INTER_AREA)
    film(folder / "talks", small, voice(2.0))
    film(folder / "hums", small, seeds.chord(16000))
    film(folder / "mute", small, None)
    film(folder / "unseen", np.full((128, 128, 3), 90, np.uint8), voice(2.0))
    return folder


@pytest.mark.parametrize("name", ["mp3", "oga", "webm-alone", "wav-float"])
def test_a_recording_is_judged_by_its_voice(name: str, files: Path, analyser: Analyser) -> None:
    report = analyse(files / name, analyser)
    assert report.media.kind is MediaKind.AUDIO
    assert report.speech is not None
    assert report.verdict == report.speech.verdict
    assert report.verdict.outcome is Outcome.FAKE
    assert (report.faces, report.deciding_face, report.overall) == ((), None, None)
    assert report.speech.speech_s > 1.0
    assert report.speech.windows[-1].end_s <= report.speech.duration_s == pytest.approx(report.media.duration_s)
    assert report.times_ms["speech"] > 0
    plain = report.to_dict()
    assert plain["prediction"] == "fake"
    assert plain["speech"]["windows"][0]["probability"] > 0.9
    assert plain["media"]["sound"]["codec"] == report.media.codec


def test_sound_without_speech_is_an_outcome_of_its_own(files: Path, analyser: Analyser) -> None:
    report = analyse(files / "tone", analyser)
    assert report.verdict.outcome is Outcome.NO_SPEECH
    assert report.to_dict()["fake_probability"] is None


def test_a_fake_voice_does_not_touch_the_faces_of_a_video(files: Path, analyser: Analyser) -> None:
    deaf = dataclasses.replace(analyser, speech=None)
    report, without = analyse(files / "talks", analyser), analyse(files / "talks", deaf)
    assert (report.verdict, report.faces) == (without.verdict, without.faces)
    assert report.speech is not None
    assert report.overall is not None
    assert (report.speech.verdict.outcome, report.overall.outcome) == (Outcome.FAKE, Outcome.FAKE)
    assert report.overall.reasons[0].code in ("fake_voice", "both_fake")
    assert report.to_dict()["prediction"] == report.verdict.outcome
    assert [notice.code for notice in report.notices] == []
    assert (without.speech, without.overall) == (None, None)
    assert [notice.code for notice in without.notices] == ["speech_missing"]
    assert "speech" not in without.times_ms


@pytest.mark.parametrize(("name", "code"), [("hums", "faces_only"), ("unseen", "voice_only"), ("mute", None)])
def test_what_was_not_judged_is_never_imputed(name: str, code: str | None, files: Path, analyser: Analyser) -> None:
    report = analyse(files / name, analyser)
    if code is None:
        assert (report.speech, report.overall, report.notices) == (None, None, ())
        return
    assert report.overall is not None
    assert [reason.code for reason in report.overall.reasons] == [code]
    assert report.speech is not None
    judged = report.verdict if code == "faces_only" else report.speech.verdict
    assert report.overall.outcome is judged.outcome


def test_recordings_and_videos_go_through_a_batch_together(files: Path, analyser: Analyser) -> None:
    names = ["talks", "mp3", "tone", "mute"]
    results = list(analyse_files([files / name for name in names], analyser))
    alone = [analyse(files / name, analyser) for name in names]
    assert [r.report and r.report.speech for r in results] == [report.speech for report in alone]
    assert [r.report and r.report.verdict.outcome for r in results] == [report.verdict.outcome for report in alone]


def test_without_weights_of_speech_a_recording_is_refused_and_the_remedy_told(files: Path, analyser: Analyser) -> None:
    (result,) = analyse_files([files / "mp3"], dataclasses.replace(analyser, speech=None))
    assert result.error is not None
    assert (result.error.code, result.error.status) == ("weights_missing", 503)
    assert "trained_models/speech" in result.error.detail


def test_damaged_weights_of_speech_stop_the_start(
    own_root: Path, settings_for: Callable[..., Settings], tmp_path: Path
) -> None:
    (own_root / SPEECH_FOLDER).mkdir()
    version = speech_version(own_root / SPEECH_FOLDER)
    network = version.folder / "speech.onnx"
    network.write_bytes(network.read_bytes()[:-1] + b"x")
    with pytest.raises(WeightsCorruptError):
        load_analyser(settings_for(own_root))


def test_another_version_of_speech_beside_the_same_faces_keeps_to_the_threads_of_the_settings(
    own_root: Path, settings_for: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_root / SPEECH_FOLDER).mkdir()
    speech_version(own_root / SPEECH_FOLDER)
    settings, given = settings_for(own_root), []

    def compiled(*graph: Any, **how: Any) -> Any:
        given.append(how["threads"])
        return compile_graph(*graph, **how)

    monkeypatch.setattr("utils.speech.judge.compile_graph", compiled)
    first = load_analyser(settings)
    speech_version(own_root / SPEECH_FOLDER, "s2", shift=SHIFT)
    after = load_analyser(settings, loaded=first)
    assert after.engine is first.engine
    assert after.speech is not None
    assert after.speech.version.name == "s2"
    assert given == [settings.detection.threads] * 4 == [1] * 4  # detector of voices and network, twice


def test_a_pinned_version_has_the_trained_version_of_speech_beside_it(
    own_root: Path, settings_for: Callable[..., Settings]
) -> None:
    root = own_root / SPEECH_FOLDER
    root.mkdir()
    trained = speech_version(root)
    learned = publish_candidate(root, "s1-r0001", trained, {"faces": np.ones((1, 4), np.float32)}, {"base": "s1"})
    set_current(root, learned.name)
    free = settings_for(own_root)
    pinned = dataclasses.replace(free, weights=dataclasses.replace(free.weights, version="tiny"))
    for settings, name in ((free, "s1-r0001"), (pinned, "s1")):
        assert current_speech(settings) == name
    (learned.folder / CARD_FILE).unlink()
    assert current_speech(pinned) is None
    with pytest.raises(WeightsMissingError, match=CARD_FILE):
        load_analyser(pinned)
    (root / CURRENT).write_text("s1\n", encoding="utf-8")
    found = load_analyser(pinned).speech
    assert found is not None
    assert found.version.name == "s1"


def test_a_recording_and_a_talking_video_give_features_of_their_voice(files: Path, analyser: Analyser) -> None:
    for name in ("mp3", "talks"):
        item = prepare_voice(files / name, analyser).faces[VOICE]
        assert isinstance(item, CachedItem)
        heard = analyse(files / name, analyser).speech
        assert heard is not None
        assert item.tokens.shape[:2] == (len(heard.windows), 1)
    assert prepare_voice(files / "tone", analyser).faces == {VOICE: NO_SPEECH}
    assert not isinstance(prepare_faces(files / "talks", analyser).faces[None], str)


def test_samples_are_shown_to_whoever_draws_them_and_then_forgotten(files: Path, analyser: Analyser) -> None:
    seen: list[Media] = []
    analyse(files / "mp3", analyser, on_media=seen.append)
    assert seen[0].samples is not None
    assert len(seen[0].samples) > 40_000
