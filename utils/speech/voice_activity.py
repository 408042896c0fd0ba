"""Where in a recording somebody speaks: Silero's detector of voices, run by OpenVINO.

Its package ships the network and wants torch only where it is imported, which it never is here: the file is found by
the package's list of files and checked by its sha256. It hears a minute of sound in about .2 s on two cores.
"""

from __future__ import annotations

import importlib.metadata
import threading
from pathlib import Path

import numpy as np

from utils.base_weights import require_file
from utils.detection.openvino_runtime import compile_graph
from utils.errors import WeightsMissingError
from utils.types import Floats

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
        self._request = compile_graph(detector_file(), hint="f32", threads=threads)
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
