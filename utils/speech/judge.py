"""Is this voice a recording or made? Samples go in, a verdict with its windows comes out. Loads no torch.

`load_speech` verifies a version below `trained_models/speech` as those of faces are verified. Silero's detector finds
where somebody speaks; its package ships the network and wants torch only where it is imported, which it never is here:
the file is found by the package's list of files and checked by its sha256. Of each window of two seconds with speech
our network makes features; their mean is what the head, and feedback, judges by: the head is linear, so the logit of
the mean is the mean of the logits.
"""

from __future__ import annotations

import copy
import importlib.metadata
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from utils.base_weights import require_file
from utils.detection.calibration import Calibration, calibration_from_dict
from utils.detection.processor import compile_graph
from utils.detection.remembered import read_remembered
from utils.detection.verdict import HEADLINES, band_notice, outcome_of, per_cent, remembered_notice
from utils.errors import WeightsCorruptError, WeightsMissingError
from utils.metrics import sigmoid
from utils.speech.spectrogram import HOP, RATE, WINDOW, WINDOW_FRAMES, fill_window, log_mel, prepare, window_starts
from utils.tensors import read_tensors
from utils.types import Floats, Notice, Outcome, SpeechReport, SpeechWindow, Verdict
from utils.weights import (
    CALIBRATION_FILE,
    SPEECH_FILE,
    SPEECH_HEAD_FILE,
    Version,
    current_name,
    networks_of,
    read_document,
    verify_version,
)

PACKAGE, FILE = "silero-vad", "silero_vad/data/silero_vad_16k_sequence.onnx"
SHA256 = "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85"
CHUNK = 512
"""Samples at 16 kHz that get one probability: 32 ms."""
CONTEXT = 64
BLOCK = 512
"""Chunks in a pass: 16 s."""
SPOKEN = 0.5
"""Probability from which a chunk counts as speech."""


def detector_file() -> Path:
    """The network inside the installed package, verified.

    Raises:
        WeightsMissingError: the package is not installed.
        WeightsCorruptError: the file has other bytes.
    """
    try:
        path = importlib.metadata.distribution(PACKAGE).locate_file(FILE)
    except importlib.metadata.PackageNotFoundError as error:
        raise WeightsMissingError(f"The package {PACKAGE} is not installed.") from error
    return require_file(Path(str(path)), SHA256)


class VoiceDetector:
    """Silero's voice activity detector.

    Source: Silero Team 2021, github.com/snakers4/silero-vad (MIT), version 6.
    """

    def __init__(self, *, threads: int = 0) -> None:
        self._request = compile_graph(detector_file(), precision="fp32", threads=threads)
        self._one_at_a_time = threading.Lock()

    def probabilities(self, samples: Floats) -> Floats:
        """Of speech, for each chunk of 512 samples; the last one is filled up with silence.

        Args:
            samples: (N,) float32 at 16 kHz, -1..1.
        """
        count = -(-len(samples) // CHUNK)
        chunks = np.zeros((count + 1, CHUNK), np.float32)  # one of silence first: what is before the first one
        chunks[1:].reshape(-1)[: len(samples)] = samples
        state = {"h": np.zeros((1, 1, 128), np.float32), "c": np.zeros((1, 1, 128), np.float32)}
        found = []
        with self._one_at_a_time:
            for start in range(0, count, BLOCK):
                part = chunks[start : start + BLOCK + 1]
                given = np.concatenate([part[:-1, -CONTEXT:], part[1:]], 1)
                answer = self._request.infer({"input": given, **state})
                found.append(np.array(answer["speech_probs"], np.float32).reshape(-1))
                state = {"h": np.array(answer["hn"]), "c": np.array(answer["cn"])}
        return np.concatenate(found) if found else np.zeros(0, np.float32)


WINDOW_STEP = 100
"""Frames from window to window: one second, so that each moment is heard twice."""
BATCH = 16
LEAST_SPEECH_S = 0.5
"""Of a recording: with less there is nothing to judge."""
DECIDED_SPEECH_S = 1.0
"""Of a recording: with less it is never decided."""
LEAST_SHARE = 0.25
"""Of a window that must be speech for it to count."""


@dataclass(frozen=True)
class Heard:
    """What the network makes of one recording.

    Args:
        starts: (W,) first sample of each window with speech.
        features: (W, D) of these windows, float32.
        speech_s: seconds of speech in the recording.
    """

    starts: tuple[int, ...]
    features: Floats
    speech_s: float


class SpeechJudge:
    """One version of the network of speech, ready to judge.

    Raises:
        WeightsError: the version's files or the detector of voices cannot be used.
    """

    def __init__(self, version: Version, *, threads: int = 0) -> None:
        self.version, self.networks = version, version.sha256
        self.remembered = read_remembered(version)
        self.calibration: Calibration = calibration_from_dict(read_document(version.folder / CALIBRATION_FILE))
        head = read_tensors(version.folder / SPEECH_HEAD_FILE)
        if {name: array.ndim for name, array in head.items()} != {"weight": 1, "bias": 1}:
            raise WeightsCorruptError(f"The head of the speech network {version.name} is not of the expected form.")
        self.weight, self.bias = head["weight"].astype(np.float32), float(head["bias"][0])
        self._voices = VoiceDetector(threads=threads)
        try:
            self._network = compile_graph(version.folder / SPEECH_FILE, precision="fp32", threads=threads)
        except RuntimeError as error:
            raise WeightsCorruptError(f"The speech network {version.name} cannot be read: {error}") from error
        self._one_at_a_time = threading.Lock()

    def spoken(self, samples: Floats) -> npt.NDArray[np.bool_]:
        """Whether somebody speaks, for each chunk of `CHUNK` samples at 16 kHz."""
        return np.asarray(self._voices.probabilities(samples) >= SPOKEN)

    def listen(self, samples: Floats) -> Heard:
        """Find the speech and compute the features of its windows.

        Args:
            samples: (N,) float32 at 16 kHz, one channel, -1..1.

        Raises:
            ValueError: they are not of this form.
        """
        if samples.ndim != 1 or samples.dtype != np.float32 or not np.isfinite(samples).all():
            raise ValueError("samples must be a row of finite float32 numbers")
        spoken = self.spoken(samples)
        speech_s = min(float(spoken.sum()) * CHUNK / RATE, len(samples) / RATE)
        if speech_s < LEAST_SPEECH_S:
            return Heard((), np.zeros((0, len(self.weight)), np.float32), speech_s)
        mel = log_mel(fill_window(samples))
        starts = window_starts(len(mel), WINDOW_STEP)
        before = np.concatenate([[0], np.cumsum(np.repeat(spoken, CHUNK))])
        ends = np.minimum(starts * HOP + WINDOW, len(before) - 1)
        share = (before[ends] - before[starts * HOP]) / np.maximum(ends - starts * HOP, 1)
        starts = starts[share >= min(LEAST_SHARE, share.max())]
        return Heard(tuple(int(s) * HOP for s in starts), self.features(mel, starts), speech_s)

    def features(self, mel: Floats, starts: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Floats:
        """(W, D) features of the windows of a spectrogram that begin at these frames."""
        out = []
        for first in range(0, len(starts), BATCH):
            windows = np.stack([mel[s : s + WINDOW_FRAMES] for s in starts[first : first + BATCH]])
            with self._one_at_a_time:
                out.append(np.array(self._network.infer({"input": prepare(windows)})["feature"], np.float32))
        return np.concatenate(out)

    def judge(self, samples: Floats, *, threshold: float = 0.5) -> SpeechReport:
        """Judge a recording.

        Args:
            samples: (N,) float32 at 16 kHz, one channel, -1..1.
            threshold: the user's, 0..1; the undecided band reaches at least to it.

        Raises:
            ValueError: the samples are not of this form.
        """
        heard = self.listen(samples)
        duration_s = len(samples) / RATE
        moved = np.zeros(len(heard.features), np.float32)
        if self.remembered is not None and len(moved):
            moved = self.remembered.shift(heard.features[:, None])
        logits = [float(feature @ self.weight) + self.bias for feature in heard.features]
        scores = [sigmoid(said + float(more)) for said, more in zip(logits, moved, strict=True)]
        windows = tuple(
            SpeechWindow(start / RATE, min((start + WINDOW) / RATE, duration_s), score)
            for start, score in zip(heard.starts, scores, strict=True)
        )
        return SpeechReport(
            verdict=self.decide(heard, scores, threshold, float(moved.mean())) if windows else no_speech_verdict(),
            windows=windows,
            speech_s=heard.speech_s,
            duration_s=duration_s,
            model_version=self.version.name,
            model_sha256=self.version.sha256,
            threshold=threshold,
        )

    def decide(self, heard: Heard, scores: list[float], threshold: float, moved: float = 0.0) -> Verdict:
        """The verdict of a recording whose windows have these scores; corrections `moved` its logit."""
        said = float(heard.features.mean(0) @ self.weight) + self.bias
        probability = sigmoid(said + moved)
        band = self.calibration.band(threshold, 0)
        outcome = outcome_of(probability, band)
        if heard.speech_s < DECIDED_SPEECH_S:
            text = f"Only {heard.speech_s:.1f} s of speech were found; at least {DECIDED_SPEECH_S:.0f} s are needed."
            outcome, reasons = Outcome.INCONCLUSIVE, [Notice("short_speech", text)]
        else:
            reasons = [band_notice(outcome, band, "a made voice", "recorded and made voices")]
        suspicious = sum(score >= band[1] for score in scores)
        if outcome is not Outcome.FAKE and suspicious:
            text = f"{suspicious} of {len(scores)} parts of two seconds lie above {per_cent(band[1])}."
            reasons.append(Notice("suspicious_windows", text))
        remembered = remembered_notice(sigmoid(said), probability, "voices")
        interval = None if remembered else self.calibration.interval(probability)  # nothing was measured of that
        return Verdict(outcome, HEADLINES[outcome], probability, interval, (*reasons, *remembered))


def no_speech_verdict() -> Verdict:
    """The outcome of a recording without speech: nothing was judged, so there is no probability."""
    text = f"Less than {LEAST_SPEECH_S} s of speech were found. That is too little to judge a voice."
    return Verdict(Outcome.NO_SPEECH, HEADLINES[Outcome.NO_SPEECH], None, None, (Notice("no_speech", text),))


def load_speech(
    root: Path, name: str | None = None, *, threads: int = 0, loaded: SpeechJudge | None = None
) -> SpeechJudge:
    """The network of speech of a version, verified.

    Args:
        root: the folder with the versions of speech, `SPEECH_FOLDER` inside that of faces.
        name: of the version; None for what `CURRENT` names.
        loaded: where the version has the same network, it is not loaded again.

    Raises:
        WeightsError: nothing is there, or something has other bytes than its checksum says.
    """
    version = verify_version(root, name or current_name(root))
    if not (version.folder / SPEECH_FILE).is_file():
        raise WeightsCorruptError(f"{root.name}/{version.name} holds no network of speech.")
    networks = networks_of(root, version).sha256
    if loaded is None or loaded.networks != networks:
        judge = SpeechJudge(version, threads=threads)
    else:
        judge = copy.copy(loaded)
        judge.version, judge.remembered = version, read_remembered(version)
    judge.networks = networks
    return judge
