"""What is said of a recording. Loads nothing but `utils.types`."""

from __future__ import annotations

from dataclasses import dataclass

from utils.types import Verdict


@dataclass(frozen=True)
class SpeechWindow:
    """The calibrated probability of fake of one window of a recording, seconds from its start."""

    start_s: float
    end_s: float
    probability: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"probability must lie in 0..1: {self.probability}")
        if not 0.0 <= self.start_s < self.end_s:
            raise ValueError(f"a window must have a length: {self.start_s} to {self.end_s}")


@dataclass(frozen=True, kw_only=True)
class SpeechReport:
    """The answer of `utils.speech.judge`: one recording, its windows, one verdict.

    Args:
        verdict: about the whole recording; `no_speech` where there is too little of it.
        windows: those with speech in them, in time order; they overlap.
        speech_s: seconds in which the detector of voices hears one.
        duration_s: of the recording, seconds.
        model_version: of the weights.
        model_sha256: of that version's checksum list.
        threshold: the user's, 0..1.
    """

    verdict: Verdict
    windows: tuple[SpeechWindow, ...]
    speech_s: float
    duration_s: float
    model_version: str
    model_sha256: str
    threshold: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.threshold <= 1.0 or not 0.0 <= self.speech_s <= self.duration_s:
            raise ValueError(f"the threshold lies in 0..1, and there is no more speech than sound: {self}")
        if self.verdict.outcome.judged != bool(self.windows):
            raise ValueError("exactly a recording with speech has windows")
