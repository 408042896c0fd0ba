"""Sound to log-mel windows, the same in training and in serving: those that Whisper's encoder learned from.

What is no property of a voice does not reach the network: everything below 80 Hz, the level, and what lies 80 dB under
the loudest of a window, where digital silence differs from a room.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from models.cards import SPEECH
from utils.types import Floats

RATE = 16000
"""Samples a second that everything here expects."""
HOP, FRAME = 160, 400
"""Samples from frame to frame (10 ms), and in a frame and its Fourier transform (25 ms)."""
BANDS = 80
LOWEST_HZ = 80.0
RANGE = 18.4
"""Natural logarithm of power that a window keeps below its loudest cell: 80 dB."""
LOUDEST, UNIT = 1.4, 4 * np.log(10)
"""What the loudest cell of a window becomes, and how much of the logarithm is one: as in speech at full scale there."""
WINDOW_FRAMES = SPEECH.input_size
WINDOW = WINDOW_FRAMES * HOP
"""Samples of a window: two seconds."""
_BLOCK = 2048


@functools.cache
def mel_filters(bins: int = FRAME // 2 + 1) -> Floats:
    """(bins, 80) triangles of equal area on the mel scale up to 8 kHz; those that are centred below 80 Hz are empty.

    Source: Slaney 1998, Auditory Toolbox: linear up to 1 kHz, logarithmic above.
    """
    mel = np.linspace(0, 15 + 27 * np.log(8) / np.log(6.4), BANDS + 2)
    edges = np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(np.log(6.4) / 27 * (mel - 15)))
    hz = np.linspace(0, RATE / 2, bins)
    rising = (hz[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hz[:, None]) / (edges[2:] - edges[1:-1])
    filters = np.clip(np.minimum(rising, falling), 0, None) * 2 / (edges[2:] - edges[:-2])
    return np.asarray(filters * (edges[1:-1] >= LOWEST_HZ), np.float32)


def log_mel(samples: Floats) -> Floats:
    """Log-mel spectrogram.

    Args:
        samples: (N,) float32 at 16 kHz.

    Returns:
        (N // 160, 80) float32, natural logarithm of power; frame i is centred on sample 160 i + 80.
    """
    frames = len(samples) // HOP
    side = (FRAME - HOP) // 2
    padded = np.pad(np.asarray(samples, np.float32), (side, FRAME))
    windowed = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP][:frames]
    taper = np.hanning(FRAME + 1)[:-1].astype(np.float32)
    out = np.empty((frames, BANDS), np.float32)
    for start in range(0, frames, _BLOCK):
        spectrum = np.fft.rfft(windowed[start : start + _BLOCK] * taper)
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
        out[start : start + _BLOCK] = np.log(power @ mel_filters() + 1e-16)
    return out


def prepare(windows: Floats) -> Floats:
    """Windows of a spectrogram as the network takes them.

    Args:
        windows: (B, T, 80) from `log_mel`.

    Returns:
        (B, T, 80) float32, the loudest cell of each window `LOUDEST`; cells 80 dB under it are raised to that.
    """
    under = np.maximum(windows - windows.max((1, 2), keepdims=True), -RANGE)
    return np.asarray(under / UNIT + LOUDEST, np.float32)


def fill_window(samples: Floats) -> Floats:
    """A recording that is shorter than a window, repeated until it fills one; a longer one as it is."""
    if not 0 < len(samples) < WINDOW:
        return samples
    return np.resize(samples, WINDOW)


def window_starts(frames: int, hop: int) -> npt.NDArray[np.int64]:
    """First frames of overlapping windows that cover `frames`, a window and more; the last one ends with them."""
    last = frames - WINDOW_FRAMES
    return np.unique(np.append(np.arange(0, last + 1, hop), last))
