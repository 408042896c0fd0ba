"""Chains and fakes: as long as before, finite, different each time, and what they leave of a voice."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import wave

import numpy as np
import pytest

from tests.speech_fixtures import voice
from utils.speech.spectrogram import RATE, log_mel, prepare
from utils.training.speech_sounds import CODECS, FAKES, band, coded, espeak, makers, noise, processed, room

SOUND = voice(1.5)


def likeness(a, b):
    """Correlation of two spectrograms, shifted against each other by up to 15 frames as encoders do."""
    first = prepare(log_mel(a)[None])[0]
    second = prepare(log_mel(b)[None])[0]
    count = min(len(first), len(second)) - 15
    return max(np.corrcoef(first[:count].ravel(), second[s : s + count].ravel())[0, 1] for s in range(15))


@pytest.mark.parametrize(("container", "codec", "rates", "rate"), CODECS, ids=[c[1] for c in CODECS])
def test_codecs_keep_length_and_voice(container, codec, rates, rate):
    after = coded(SOUND, container, codec, rates[-1], rate)
    assert after.shape == SOUND.shape
    assert after.dtype == np.float32
    assert 0.7 < likeness(SOUND, after) < 0.9999


def test_a_band_is_all_that_is_left():
    hiss = np.random.default_rng(0).normal(size=RATE).astype(np.float32)
    power = np.abs(np.fft.rfft(band(hiss, 300, 3400))) ** 2
    assert power[500:3300].mean() > 50 * max(power[:150].mean(), power[5000:].mean())
    low = np.abs(np.fft.rfft(band(hiss, 0, 3000))) ** 2
    assert low[:2500].mean() > 1000 * low[5000:].mean()


def test_noise_and_rooms():
    rng = np.random.default_rng(0)
    assert noise(4000, rng).std() == pytest.approx(1, abs=1e-3)
    click = np.zeros(RATE, np.float32)
    click[0] = 1
    answer = room(click, rng)
    assert answer[0] == pytest.approx(1, abs=1e-4)
    assert np.square(answer[1:800]).sum() > 20 * np.square(answer[-800:]).sum()


def test_chains_differ_and_stay_voices():
    made = [processed(SOUND, np.random.default_rng(seed)) for seed in range(12)]
    assert all(np.isfinite(m).all() and 0.8 * len(SOUND) < len(m) < 1.2 * len(SOUND) for m in made)
    assert np.array_equal(made[3], processed(SOUND, np.random.default_rng(3)))
    assert len({m.tobytes() for m in made}) == len(made)


@pytest.mark.parametrize("name", FAKES)
def test_fakes_say_the_same_in_another_way(name):
    if name not in makers()[0]:
        assert not (importlib.util.find_spec("pyworld") and importlib.util.find_spec("pkg_resources"))
        assert "pip install pyworld" in makers()[1]
        return
    made = FAKES[name](SOUND, np.random.default_rng(1))
    assert np.isfinite(made).all()
    assert len(SOUND) <= len(made) < len(SOUND) + 400
    assert 0.55 < likeness(SOUND, made) < 0.9995


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    names, missing = makers()
    assert list(names) == ["few components", "Griffin-Lim", "LPC"]
    assert "pip install pyworld" in missing
    assert "espeak-ng" in missing


def test_the_engine_is_asked_for_numbers_in_many_voices(monkeypatch):
    asked = []

    def run(command, **options):
        asked.append(command)
        store = io.BytesIO()
        with wave.open(store, "wb") as file:
            file.setparams((1, 2, 22050, 0, "NONE", ""))
            file.writeframes((9000 * np.sin(np.arange(22050) / 9)).astype("<i2").tobytes())
        return subprocess.CompletedProcess(command, 0, stdout=store.getvalue())

    monkeypatch.setattr(subprocess, "run", run)
    sounds = [espeak(np.random.default_rng(seed)) for seed in range(8)]
    assert all(abs(len(sound) - RATE) < 50 for sound in sounds)
    assert all(0.25 < np.abs(sound).max() < 0.3 for sound in sounds)
    assert all(command[0] == "espeak-ng" and command[-1].count(",") == 3 for command in asked)
    assert len({command[2] for command in asked}) > 4
