"""Reports of recordings check themselves."""

from __future__ import annotations

import pytest

from utils.speech.judge import no_speech_verdict
from utils.types import SpeechReport, SpeechWindow

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
