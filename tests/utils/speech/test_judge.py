"""Judging a recording: verdicts, windows, no speech, refused weights, and what a process then has loaded."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from models.speech_model import build_speech
from tests.speech_fixtures import speech_version, voice
from utils.errors import WeightsCorruptError, WeightsMissingError
from utils.metrics import logit, sigmoid
from utils.speech.judge import BATCH, CHUNK, VoiceDetector, detector_file, load_speech, no_speech_verdict
from utils.speech.spectrogram import RATE, WINDOW_FRAMES, log_mel, prepare
from utils.types import Outcome, SpeechReport, SpeechWindow
from utils.weights import SPEECH_FOLDER

NOISE = np.random.default_rng(0).normal(0, 0.1, 3 * RATE).astype(np.float32)
TONE = (0.3 * np.sin(0.2 * np.arange(3 * RATE))).astype(np.float32)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    speech_version(folder)
    return folder


@pytest.fixture(scope="module")
def judge(root):
    return load_speech(root, threads=1)


def test_windows_and_probability_are_those_of_the_network_in_torch(judge):
    sound = voice(4.5)
    report = judge.judge(sound)
    torch.manual_seed(0)
    network = build_speech(True).eval()
    starts = [0, 100, 200, 250]
    windows = np.stack([log_mel(sound)[s : s + WINDOW_FRAMES] for s in starts])
    with torch.no_grad():
        wanted = network(torch.from_numpy(prepare(windows))).logit.numpy()
    assert [w.start_s for w in report.windows] == [0.0, 1.0, 2.0, 2.5]
    assert report.windows[-1].end_s == report.duration_s == 4.5
    assert np.allclose([logit(w.probability) for w in report.windows], wanted, atol=1e-4)
    assert report.verdict.probability == pytest.approx(sigmoid(wanted.mean()), abs=1e-4)
    assert report.verdict.interval[0] <= report.verdict.probability <= report.verdict.interval[1]
    assert 4 < report.speech_s <= 4.5
    assert (report.model_version, report.model_sha256) == ("s1", judge.version.sha256)


@pytest.mark.parametrize(
    ("shift", "outcome", "code"),
    [(4, Outcome.FAKE, "above_band"), (-4, Outcome.REAL, "below_band"), (0, Outcome.INCONCLUSIVE, "within_band")],
)
def test_the_band_decides(tmp_path, shift, outcome, code):
    speech_version(tmp_path, scale=0.01, shift=shift)
    verdict = load_speech(tmp_path, threads=1).judge(voice(2.5)).verdict
    assert verdict.outcome is outcome
    assert [reason.code for reason in verdict.reasons] == [code]


def test_a_made_passage_in_a_recording_is_named(judge):
    heard = judge.listen(voice(6.0))
    weight = np.sqrt((judge.weight**2).sum())
    features = np.zeros_like(heard.features)
    features[2] = judge.weight / weight**2 * 5
    mixed = type(heard)(heard.starts, features - judge.bias * judge.weight / weight**2 - features.mean(0), 5.0)
    scores = [sigmoid(float(f @ judge.weight) + judge.bias) for f in mixed.features]
    verdict = judge.decide(mixed, scores, 0.5)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reasons[-1].code == "suspicious_windows"
    assert verdict.reasons[-1].text.startswith("1 of 5 parts of two seconds")


@pytest.mark.parametrize("sound", [np.zeros(0, np.float32), np.zeros(3 * RATE, np.float32), NOISE, TONE, voice(0.3)])
def test_without_speech_nothing_is_judged(judge, sound):
    report = judge.judge(sound)
    assert report.verdict.outcome is Outcome.NO_SPEECH
    assert (report.verdict.probability, report.windows) == (None, ())
    assert [reason.code for reason in report.verdict.reasons] == ["no_speech"]


def test_too_little_speech_is_not_decided(tmp_path):
    speech_version(tmp_path, scale=0.01, shift=4)
    sound = np.concatenate([np.zeros(RATE, np.float32), voice(0.8), np.zeros(RATE, np.float32)])
    report = load_speech(tmp_path, threads=1).judge(sound)
    assert 0.5 <= report.speech_s < 1.0
    assert report.verdict.outcome is Outcome.INCONCLUSIVE
    assert report.verdict.reasons[0].code == "short_speech"


def test_windows_of_silence_are_left_out(judge):
    sound = np.concatenate([voice(3.0), np.zeros(6 * RATE, np.float32)])
    assert all(window.start_s < 3 for window in judge.judge(sound).windows)


@pytest.mark.parametrize("sound", [np.zeros((2, RATE), np.float32), np.zeros(RATE), np.full(RATE, np.nan, np.float32)])
def test_other_arrays_are_refused(judge, sound):
    with pytest.raises(ValueError, match="finite float32"):
        judge.judge(sound)


def test_batches_do_not_change_features(judge):
    sound = voice(1.0 * BATCH + 6)
    heard = judge.listen(sound)
    assert len(heard.starts) > BATCH
    alone = judge.features(log_mel(sound), np.array([heard.starts[-1] // 160]))
    assert np.allclose(heard.features[-1], alone[0], atol=1e-5)


def test_missing_and_changed_weights_are_refused(tmp_path):
    with pytest.raises(WeightsMissingError, match="no version is chosen"):
        load_speech(tmp_path)
    version = speech_version(tmp_path)
    path = version.folder / "speech.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(WeightsCorruptError, match=r"speech\.onnx"):
        load_speech(tmp_path)
    path.unlink()
    with pytest.raises(WeightsMissingError, match=r"speech\.onnx"):
        load_speech(tmp_path)


def test_a_detector_with_other_bytes_is_refused(monkeypatch):
    monkeypatch.setattr("utils.speech.judge.SHA256", "0" * 64)
    with pytest.raises(WeightsCorruptError, match="silero"):
        detector_file()
    monkeypatch.setattr("utils.speech.judge.PACKAGE", "no-such-package")
    with pytest.raises(WeightsMissingError, match="no-such-package is not installed"):
        detector_file()


def test_the_detector_hears_on_from_block_to_block():
    sound, detector = voice(20.0), VoiceDetector(threads=1)
    whole = detector.probabilities(sound)
    assert len(whole) == -(-len(sound) // CHUNK)
    assert (whole >= 0.5).mean() > 0.9
    assert np.allclose(detector.probabilities(sound[: 8 * RATE]), whole[: 8 * RATE // CHUNK], atol=1e-4)


def test_one_minute_takes_at_most_two_seconds(judge):
    minute = np.tile(voice(10.0), 6)
    judge.judge(minute)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        judge.judge(minute)
        times.append(time.perf_counter() - start)
    assert min(times) < 2


def test_judging_loads_no_torch(root):
    program = (
        "import sys, numpy, pathlib; from utils.speech.judge import load_speech\n"
        f"load_speech(pathlib.Path({str(root)!r})).judge(numpy.zeros(16000, numpy.float32))\n"
        "print([n for n in ('torch', 'silero_vad', 'sklearn', 'utils.training', 'av') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Reports of recordings check themselves.

GOOD = {
    "verdict": no_speech_verdict(), "windows": (), "speech_s": 0.2, "duration_s": 3.0,
    "model_version": "s1", "model_sha256": "0" * 64, "threshold": 0.5,
}  # fmt: skip


def test_what_is_right_is_taken():
    assert SpeechReport(**GOOD).windows == ()


@pytest.mark.parametrize(
    "wrong",
    [{"threshold": 1.5}, {"speech_s": 4.0}, {"speech_s": -1.0}, {"windows": (SpeechWindow(0.0, 2.0, 0.4),)}],
)
def test_what_contradicts_itself_is_refused(wrong):
    with pytest.raises(ValueError, match=r"threshold|windows"):
        SpeechReport(**(GOOD | wrong))


@pytest.mark.parametrize(("start", "end", "probability"), [(1.0, 1.0, 0.5), (-1.0, 1.0, 0.5), (0.0, 1.0, 1.2)])
def test_windows_have_a_length_and_a_probability(start, end, probability):
    with pytest.raises(ValueError, match=r"length|probability"):
        SpeechWindow(start, end, probability)


# The network of speech in the repository: whole, small enough, and no more certain than its figures allow.

ROOT = Path(__file__).resolve().parents[3] / "trained_models" / SPEECH_FOLDER


def test_it_loads_and_judges_a_voice():
    judge = load_speech(ROOT, threads=1)
    report = judge.judge(voice(3.0))
    assert report.verdict.outcome in (Outcome.REAL, Outcome.FAKE, Outcome.INCONCLUSIVE)
    assert report.model_version == (ROOT / "CURRENT").read_text().strip()
    assert sum(path.stat().st_size for path in judge.version.folder.iterdir()) < 6_000_000


def test_its_card_says_what_it_learned_from_and_how_well():
    card = load_speech(ROOT, threads=1).version.card
    assert not card.get("tiny")
    assert card["data"]["terms"]
    assert 0.5 < float(card["validation"]["auc"].split()[0]) < 1
    assert card["validation"]["eer_left_out_families"]
    assert sum(card["data"]["recordings"].values()) > 1400
    assert float(card["left_out_in_turn"]["auc"].split()[0]) > 0.75
