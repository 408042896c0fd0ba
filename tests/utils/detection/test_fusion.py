"""One line for faces and voice: neither hides the other, and its errors follow from the parts'."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from utils.detection.verdict import fuse
from utils.types import Notice, Outcome, Verdict

FACES = (Outcome.FAKE, Outcome.REAL, Outcome.INCONCLUSIVE, Outcome.NO_FACE)
VOICES = (Outcome.FAKE, Outcome.REAL, Outcome.INCONCLUSIVE, Outcome.NO_SPEECH)


def verdict(outcome: Outcome) -> Verdict:
    p = 0.5 if outcome.judged else None
    return Verdict(outcome, "x", p, None if p is None else (0.4, 0.6), (Notice("x", "x"),))


@pytest.mark.parametrize(
    ("faces", "voice", "outcome", "code"),
    [
        ("real", "fake", "fake", "fake_voice"),
        ("inconclusive", "fake", "fake", "fake_voice"),
        ("fake", "real", "fake", "fake_faces"),
        ("fake", "fake", "fake", "both_fake"),
        ("real", "real", "real", "both_real"),
        ("inconclusive", "inconclusive", "inconclusive", "both_inconclusive"),
        ("real", "inconclusive", "inconclusive", "one_undecided"),
        ("inconclusive", "real", "inconclusive", "one_undecided"),
        ("real", "no_speech", "real", "faces_only"),
        ("no_face", "fake", "fake", "voice_only"),
        ("no_face", "real", "real", "voice_only"),
    ],
)
def test_what_the_parts_say_together(faces: str, voice: str, outcome: str, code: str) -> None:
    said = fuse(verdict(Outcome(faces)), verdict(Outcome(voice)))
    assert said is not None
    assert (said.outcome, [reason.code for reason in said.reasons]) == (Outcome(outcome), [code])


def test_both_parts_are_named_in_every_case() -> None:
    headlines = {pair: fuse(*map(verdict, pair)) for pair in itertools.product(FACES, VOICES)}
    assert headlines.pop((Outcome.NO_FACE, Outcome.NO_SPEECH)) is None
    assert len({said.headline for said in headlines.values() if said is not None}) == len(headlines)
    assert all("face" in said.headline.lower() and ("voice" in said.headline or "speech" in said.headline)
               for said in headlines.values() if said is not None)  # fmt: skip


def test_false_alarms_are_no_more_than_those_of_the_parts_together() -> None:
    """However the parts' errors depend on each other: here alike, opposite and independent."""
    rng = np.random.default_rng(0)
    for link in (1.0, -1.0, 0.0):
        first = rng.uniform(size=4000)
        second = first if link == 1 else 1 - first if link == -1 else rng.uniform(size=4000)
        faces = [Outcome.FAKE if u < 0.05 else Outcome.REAL for u in first]
        voices = [Outcome.FAKE if u < 0.04 else Outcome.REAL for u in second]
        together = [fuse(verdict(a), verdict(b)) for a, b in zip(faces, voices, strict=True)]
        alarms = sum(said is not None and said.outcome is Outcome.FAKE for said in together)
        assert alarms <= faces.count(Outcome.FAKE) + voices.count(Outcome.FAKE)
        assert alarms >= max(faces.count(Outcome.FAKE), voices.count(Outcome.FAKE)), "neither hides the other"
