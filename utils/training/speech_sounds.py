"""What a recording may have gone through, for both classes alike, and fakes made of a recording, as its pairs.

Fakes take the recording apart into what vocoders and statistical synthesis keep of it and build it up again: the words,
the voice, the room and the level are the same, so that nothing but the synthesis tells the two apart.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import butter, fftconvolve, istft, lfilter, resample_poly, sosfilt, stft

from utils.errors import TrainingDataError
from utils.speech.spectrogram import RATE, mel_filters
from utils.types import Floats

Maker = Callable[[Floats, np.random.Generator], Floats]

CODECS: tuple[tuple[str, str, tuple[int, ...], int], ...] = (
    ("mp3", "libmp3lame", (24, 32, 48, 64, 96), RATE),
    ("adts", "aac", (24, 32, 48, 64), RATE),
    ("ogg", "libopus", (10, 12, 16, 24, 32), RATE),
    ("ogg", "vorbis", (32, 48, 64), RATE),
    ("amr", "libopencore_amrnb", (7, 10, 12), 8000),
    ("wav", "pcm_mulaw", (64,), 8000),
    ("wav", "g722", (64,), RATE),
    ("asf", "wmav2", (24, 32, 48), RATE),
)
"""Container, encoder, rates in kbit/s and samples a second of what recordings are sent and kept in."""
TELEPHONE_HZ = (300, 3400)


def coded(samples: Floats, container: str, codec: str, kbit: int, rate: int = RATE) -> Floats:
    """A recording after a codec, as long as before.

    Args:
        samples: (N,) at 16 kHz.
        rate: samples a second that the codec works at.
    """
    import av

    store = io.BytesIO()
    frame = av.AudioFrame.from_ndarray(np.asarray(samples[None], np.float32), format="fltp", layout="mono")
    frame.sample_rate = RATE
    channels = "stereo" if codec == "vorbis" else "mono"
    with av.open(store, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout=channels)
        stream.bit_rate = {7: 7400, 10: 10200, 12: 12200}[kbit] if "amr" in codec else 1000 * kbit
        options = {"strict": "experimental"} if codec == "vorbis" else {}
        stream.codec_context.options = options
        resampler = av.AudioResampler(stream.codec_context.format, channels, rate, stream.codec_context.frame_size or 0)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    store.seek(0)
    with av.open(store, "r", format={"adts": "aac"}.get(container, container)) as taken:
        sound = _all_of(taken)
    return np.pad(sound, (0, max(0, len(samples) - len(sound))))[: len(samples)]


def band(samples: Floats, low: float, high: float) -> Floats:
    """A recording of which only what lies between two frequencies is left; `low` of 0 leaves the low ones."""
    if low:
        sections = butter(4, [low, min(high, 7900)], "bandpass", fs=RATE, output="sos")
    else:
        sections = butter(8, min(high, 7900), "lowpass", fs=RATE, output="sos")
    return np.asarray(sosfilt(sections, samples), np.float32)


def noise(count: int, rng: np.random.Generator) -> Floats:
    """Noise of a random colour, with a spread of 1."""
    shape = lfilter([1.0], [1.0, -rng.uniform(0, 0.98)], rng.normal(size=count))
    return np.asarray(shape / shape.std(), np.float32)


def room(samples: Floats, rng: np.random.Generator) -> Floats:
    """A recording in a room: reverberation that decays by 60 dB within .1 to .7 s, under the voice itself."""
    seconds = rng.uniform(0.1, 0.7)
    time = np.arange(int(seconds * RATE)) / RATE
    tail = rng.normal(size=len(time)) * 10 ** (-3 * time / seconds)
    tail *= rng.uniform(0.1, 0.7) / np.sqrt((tail**2).sum())
    tail[0] = 1.0
    return np.asarray(fftconvolve(samples, tail)[: len(samples)], np.float32)


def processed(samples: Floats, rng: np.random.Generator) -> Floats:
    """A recording after a random chain: speed, room, noise, band limits, one or two codecs."""
    sound = np.asarray(samples, np.float32)
    if rng.random() < 0.25:
        step = int(rng.choice([19, 18, 21, 22]))
        sound = np.asarray(resample_poly(sound, 20, step), np.float32)
    if rng.random() < 0.15:
        sound = room(sound, rng)
    if rng.random() < 0.3:
        level = np.sqrt(np.mean(sound**2)) * 10 ** (-rng.uniform(12, 40) / 20)
        sound = sound + np.float32(level) * noise(len(sound), rng)
    if rng.random() < 0.15:
        sound = band(sound, *TELEPHONE_HZ)
    elif rng.random() < 0.25:
        sound = band(sound, 0, rng.uniform(3000, 7500))
    sound = sound * np.float32(10 ** (rng.uniform(-20, -3) / 20) / (np.abs(sound).max() + 1e-9))
    for _ in range(int(rng.choice(3, p=[0.3, 0.6, 0.1]))):
        container, codec, rates, rate = CODECS[rng.integers(len(CODECS))]
        sound = coded(sound, container, codec, int(rng.choice(rates)), rate)
    return sound


def _phases(magnitude: Floats, rounds: int, rng: np.random.Generator) -> Floats:
    """A sound whose short-time spectrum, (257, T) of frames of 512 every 128, has these magnitudes."""
    spectrum = magnitude * np.exp(2j * np.pi * rng.random(magnitude.shape))
    for _ in range(rounds):
        _, sound = istft(spectrum, nperseg=512, noverlap=384)
        again = stft(sound, nperseg=512, noverlap=384)[2]
        spectrum = magnitude * np.exp(1j * np.angle(again[:, : magnitude.shape[1]]))
    return np.asarray(istft(spectrum, nperseg=512, noverlap=384)[1], np.float32)


def griffin_lim(samples: Floats, rng: np.random.Generator) -> Floats:
    """Magnitudes, of the whole spectrum or of its mel bands only, with phases found again.

    Source: Griffin and Lim 1984, "Signal Estimation from Modified Short-Time Fourier Transform".
    """
    magnitude = np.abs(stft(samples, nperseg=512, noverlap=384)[2])
    if rng.random() < 0.6:
        filters = mel_filters(len(magnitude))[:, :: int(rng.choice([1, 2]))] + np.float32(1e-9)
        mel = (filters / filters.sum(0)).T @ magnitude**2
        magnitude = np.sqrt((filters / filters.sum(1, keepdims=True)) @ mel)
    return _phases(magnitude, int(rng.choice([6, 12, 25])), rng)


def linear_prediction(samples: Floats, rng: np.random.Generator) -> Floats:
    """Resonances of the throat frame by frame, sounded again by pulses and noise.

    Source: Atal and Hanauer 1971, "Speech Analysis and Synthesis by Linear Prediction of the Speech Wave".
    """
    order, hop = int(rng.choice([12, 16, 20, 28])), 160
    padded = np.pad(samples, 240)
    out, state, phase = np.zeros(len(samples) + hop), np.zeros(order), 0.0
    for start in range(0, len(samples), hop):
        frame = padded[start : start + 480] * np.hanning(480)
        echo = np.fft.irfft(np.abs(np.fft.rfft(frame, 1024)) ** 2)[: max(400, order + 1)]
        if echo[0] < 1e-7:
            continue
        matrix = echo[np.abs(np.subtract.outer(np.arange(order), np.arange(order)))] + 1e-4 * echo[0] * np.eye(order)
        predictor = np.linalg.solve(matrix, echo[1 : order + 1])
        gain = np.sqrt(max(echo[0] - predictor @ echo[1 : order + 1], 1e-9) / 180)
        lag = 40 + int(echo[40:320].argmax())
        voiced = echo[lag] > 0.3 * echo[0]
        source = rng.normal(size=hop) * (0.15 if voiced else 1.0)
        if voiced:
            turns = phase + np.arange(1, hop + 1) / lag
            source += np.diff(np.floor(turns), prepend=np.floor(phase)) * np.sqrt(lag)
            phase = turns[-1] % 1
        out[start : start + hop], state = lfilter([gain], np.r_[1, -predictor], source, zi=state)
    return np.asarray(out[: len(samples)], np.float32)


def few_components(samples: Floats, rng: np.random.Generator) -> Floats:
    """The phases of a recording under mel bands that a few principal components give, in whole steps every second time:
    what is left of a voice in the small code of an autoencoder or a codec.
    """
    spectrum = stft(samples, nperseg=512, noverlap=384)[2]
    filters = mel_filters(len(spectrum)) + np.float32(1e-9)
    spread = filters / filters.sum(1, keepdims=True)
    mel = (filters / filters.sum(0)).T @ np.abs(spectrum) ** 2
    log = np.log(mel + 1e-8)
    mean = log.mean(1, keepdims=True)
    left, size, right = np.linalg.svd(log - mean, full_matrices=False)
    count = int(rng.choice([4, 6, 10, 16]))
    log = (left[:, :count] * size[:count]) @ right[:count] + mean
    if rng.random() < 0.5:
        step = rng.uniform(0.3, 1.0)
        log = np.round(log / step) * step
    gain = np.sqrt((spread @ np.exp(log)) / (spread @ mel + 1e-9))
    return np.asarray(istft(spectrum * np.clip(gain, 0, 4), nperseg=512, noverlap=384)[1], np.float32)


def world(samples: Floats, rng: np.random.Generator) -> Floats:
    """Pitch, envelope and breath of the WORLD vocoder, as they are, moved to another voice, or smoothed over time.

    Source: Morise et al. 2016, "WORLD: A Vocoder-Based High-Quality Speech Synthesis System".
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its way of asking for its own version is deprecated
        pyworld = importlib.import_module("pyworld")  # a tool for making data, not required
    sound = np.asarray(samples, np.float64)
    pitch, time = pyworld.dio(sound, RATE)
    pitch = pyworld.stonemask(sound, pitch, time, RATE)
    envelope = pyworld.cheaptrick(sound, pitch, time, RATE)
    breath = pyworld.d4c(sound, pitch, time, RATE)
    way = rng.integers(3)
    if way == 1:
        pitch = pitch * rng.uniform(0.7, 1.4)
        places = np.clip(np.arange(envelope.shape[1]) * rng.uniform(0.88, 1.14), 0, envelope.shape[1] - 1)
        envelope = np.ascontiguousarray(envelope[:, np.rint(places).astype(int)])
    elif way == 2:
        few = pyworld.code_spectral_envelope(envelope, RATE, int(rng.choice([24, 40, 60])))
        weight = np.ones(int(rng.choice([1, 3, 5])))
        few = np.apply_along_axis(np.convolve, 0, few, weight / len(weight), "same")
        envelope = pyworld.decode_spectral_envelope(np.ascontiguousarray(few), RATE, 1024)
    return np.asarray(pyworld.synthesize(pitch, envelope, breath, RATE), np.float32)


FAKES: dict[str, Maker] = {
    "few components": few_components,
    "Griffin-Lim": griffin_lim,
    "LPC": linear_prediction,
    "WORLD": world,
}
"""Family and maker of each kind of fake that is made of a recording; what a maker gives may be some samples longer."""


VOICES = ("en", "en-us", "de", "fr", "es", "it", "pt", "ru", "pl", "nl", "cs", "sv")
VARIANTS = ("+m3", "+m5", "+m7", "+f2", "+f4", "+klatt2", "+klatt4", "+croak")


def espeak(rng: np.random.Generator) -> Floats:
    """Numbers in a random language and voice, by formant synthesis of the program espeak-ng.

    Source: Klatt 1980, "Software for a Cascade/Parallel Formant Synthesizer", and its successors.
    """
    voice = str(rng.choice(VOICES)) + str(rng.choice(["", *VARIANTS]))
    text = ", ".join(str(number) for number in rng.integers(10, 10_000, 4))
    manner = [f"-s{rng.integers(120, 210)}", f"-p{rng.integers(15, 85)}"]
    command = ["espeak-ng", "-v", voice, *manner, "--stdout", text]
    done = subprocess.run(command, capture_output=True, check=True)  # noqa: S603 (fixed arguments)
    return read_sound(io.BytesIO(done.stdout))


def read_sound(file: Path | io.BytesIO) -> Floats:
    """A recording as float32 at 16 kHz, one channel.

    Raises:
        TrainingDataError: it cannot be decoded.
    """
    import av

    try:
        with av.open(file if isinstance(file, io.BytesIO) else str(file)) as container:
            return _all_of(container)
    except (av.FFmpegError, IndexError) as error:
        raise TrainingDataError(f"{file} cannot be decoded: {error}.") from error


def _all_of(container: Any) -> Floats:
    import av

    resampler = av.AudioResampler("fltp", "mono", RATE)
    parts = [p.to_ndarray()[0] for f in container.decode(audio=0) for p in resampler.resample(f)]
    parts += [p.to_ndarray()[0] for p in resampler.resample(None)]
    return np.concatenate(parts).astype(np.float32)


def makers() -> tuple[dict[str, Maker], str]:
    """The makers that can be used here, and sentences about what is missing; empty where nothing is."""
    names, missing = dict(FAKES), []
    if not (importlib.util.find_spec("pyworld") and importlib.util.find_spec("pkg_resources")):
        del names["WORLD"]
        missing.append("WORLD's fakes are left out: `pip install pyworld==0.3.5 'setuptools<81'` (MIT) brings them.")
    if not shutil.which("espeak-ng"):
        missing.append("Formant synthesis is left out: Debian's package espeak-ng (GPL-3, a tool only) brings it.")
    return names, " ".join(missing)
