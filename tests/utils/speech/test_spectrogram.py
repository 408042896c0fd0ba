"""The spectrogram: where a tone stands, what is left out, and windows that cover everything."""

from __future__ import annotations

import numpy as np
import pytest

from tests.speech_fixtures import voice
from utils.speech.spectrogram import (
    BANDS,
    FRAME,
    HOP,
    LOUDEST,
    RANGE,
    RATE,
    UNIT,
    WINDOW,
    WINDOW_FRAMES,
    fill_window,
    log_mel,
    mel_filters,
    prepare,
    window_starts,
)


@pytest.mark.parametrize("hertz", [150, 1000, 3000, 7000])
def test_a_tone_stands_in_its_band(hertz):
    tone = np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE).astype(np.float32)
    loudest = log_mel(tone)[10:-10].argmax(1)
    wanted = mel_filters()[round(hertz * FRAME / RATE)].argmax()
    assert np.abs(loudest - wanted).max() <= 1


def test_frames_are_centred_on_their_hop():
    click = np.zeros(RATE, np.float32)
    click[50 * HOP + HOP // 2] = 1.0
    assert log_mel(click).mean(1).argmax() == 50
    assert log_mel(click).shape == (100, BANDS)


def test_level_hum_and_noise_floor_do_not_reach_the_network():
    speech = voice(2.0)
    hum = (0.02 * np.sin(2 * np.pi * 50 * np.arange(len(speech)) / RATE)).astype(np.float32)
    plain = prepare(log_mel(speech)[None])
    assert np.allclose(prepare(log_mel(0.05 * speech)[None]), plain, atol=1e-3)
    assert np.abs(prepare(log_mel(speech + hum)[None])[..., 4:] - plain[..., 4:]).mean() < 0.06
    silent = np.where(np.arange(len(speech)) < RATE, speech, 0).astype(np.float32)
    hiss = silent + np.random.default_rng(0).normal(0, 1e-6, len(speech)).astype(np.float32)
    assert np.allclose(prepare(log_mel(silent)[None]), prepare(log_mel(hiss)[None]), atol=0.05)
    assert np.ptp(plain) <= RANGE / UNIT + 1e-5
    assert plain.max() == pytest.approx(LOUDEST)


@pytest.mark.parametrize("samples", [HOP, 5000, WINDOW - 1])
def test_short_recordings_are_repeated_until_a_window_is_full(samples):
    sound = np.arange(1, samples + 1, dtype=np.float32)
    filled = fill_window(sound)
    assert len(filled) == WINDOW
    assert np.array_equal(filled, sound[np.arange(WINDOW) % samples])
    assert len(log_mel(filled)) == WINDOW_FRAMES


@pytest.mark.parametrize("frames", [200, 201, 300, 355, 6000])
def test_windows_cover_the_recording_and_none_reaches_over_its_end(frames):
    starts = window_starts(frames, 100)
    assert starts[0] == 0
    assert starts[-1] + WINDOW_FRAMES == frames
    assert (np.diff(starts) <= 100).all()
    assert (np.diff(starts) > 0).all()
