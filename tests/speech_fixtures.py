"""A tiny version of the network of speech and sounds that are made here, for every test that needs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy.signal import lfilter

from models.speech_model import build_speech
from utils.detection.calibration import Calibration, ReliabilityBin
from utils.speech.spectrogram import RATE
from utils.training.speech_version import publish_speech
from utils.types import Floats
from utils.weights import Version, set_current

BAND = Calibration((ReliabilityBin(0.0, 0.5, 40, 4), ReliabilityBin(0.5, 1.0, 40, 36)), 0.3, 0.7, {})

FORMANTS = np.array(
    [[730, 1090, 2440], [270, 2290, 3010], [570, 840, 2410], [300, 870, 2240], [530, 1840, 2480], [660, 1720, 2410]]
)
"""Of six vowels, hertz. Source: Peterson and Barney 1952, "Control Methods Used in a Study of the Vowels"."""


def speech_version(root: Path, name: str = "s1", *, scale: float = 1.0, shift: float = 0.0) -> Version:
    """Publish and choose a tiny version below `root`, with weights drawn from a fixed seed."""
    torch.manual_seed(0)
    network = build_speech(True).eval()
    version = publish_speech(root, name, network, BAND, {"tiny": True}, scale=scale, shift=shift)
    set_current(root, name)
    return version


def voice(seconds: float, *, pitch: float = 120.0, seed: int = 0) -> Floats:
    """Pulses of a throat through formants that glide from vowel to vowel, with hisses between: speech for a detector.

    Args:
        seconds: of sound.
        pitch: its mean, hertz.
        seed: of what is said.

    Returns:
        (N,) float32 at 16 kHz, at most 0.3 in size.
    """
    rng = np.random.default_rng(seed)
    count = int(seconds * RATE)
    time = np.arange(count) / RATE
    wobble = 1 + 0.01 * np.repeat(rng.normal(size=count // 160 + 1), 160)[:count]
    hertz = pitch * wobble * (1 + 0.12 * np.sin(3.8 * time + 1) + 0.05 * np.sin(14.5 * time))
    pulses = np.diff(np.floor(np.cumsum(hertz) / RATE), prepend=0.0)
    throat = np.diff(lfilter([0.05], [1, -1.9, 0.9025], pulses), prepend=0.0)
    place = 4 * time  # syllables
    loudness = np.clip(1.6 * np.sin(np.pi * (place % 1)) - 0.15, 0, 1)
    source = (throat + 0.002 * rng.normal(size=count)) * loudness
    vowels = FORMANTS[rng.integers(len(FORMANTS), size=int(4 * seconds) + 2)]
    states, out = [np.zeros(2) for _ in range(3)], np.zeros(count)
    for start in range(0, count, 80):
        syllable = int(place[start])
        share = np.clip((place[start] - syllable - 0.35) / 0.3, 0, 1)
        part = source[start : start + 80]
        for i, hz in enumerate((1 - share) * vowels[syllable] + share * vowels[syllable + 1]):
            radius = np.exp(-np.pi * (60, 90, 150)[i] / RATE)
            ring = [1, -2 * radius * np.cos(2 * np.pi * hz / RATE), radius**2]
            part, states[i] = lfilter([sum(ring)], ring, part, zi=states[i])
        out[start : start + 80] = part
    between = np.clip(3 * np.sin(np.pi * ((place + 0.5) % 1)) - 2.2, 0, 1) * (np.floor(place + 0.5) % 2 == 0)
    out = out / np.abs(out).max() + 0.03 * np.diff(rng.normal(size=count), prepend=0.0) * between
    return (0.3 * out / np.abs(out).max()).astype(np.float32)
