"""Clips of which only a part matters: a face at the end, a cut to somebody else, a stretch that stands apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.utils.faces.people import other_person, person
from utils.config import Settings
from utils.detection.engine import Answers, Engine
from utils.detection.pipeline import Analyser, analyse, load_analyser
from utils.types import Outcome, Pixels

RATE = 2


@pytest.fixture(scope="module")
def analyser(tiny_root: Path, settings_for: Callable[..., Settings]) -> Analyser:
    return load_analyser(settings_for(tiny_root))


def write(path: Path, scenes: list[tuple[Pixels, float]]) -> Path:
    """A clip of still scenes with their seconds, each a little livelier than a photograph."""
    rng = np.random.default_rng(5)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(RATE))
        stream.height, stream.width = (side // 2 for side in scenes[0][0].shape[:2])
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "20", "g": "10"}
        for picture, seconds in scenes:
            for _ in range(round(seconds * RATE)):
                moved = np.roll(picture[::2, ::2], tuple(rng.integers(-1, 2, 2)), (0, 1))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(moved))))
        container.mux(stream.encode())
    return path


def wall() -> Pixels:
    ramp = np.linspace(60, 160, 512, dtype=np.uint8)
    return np.ascontiguousarray(np.broadcast_to(ramp[:, None, None], (512, 512, 3)))


def codes(report: Any) -> list[str]:
    return [reason.code for reason in report.verdict.reasons]


def test_a_face_in_the_last_seconds_of_a_minute_is_found(analyser: Analyser, tmp_path: Path) -> None:
    report = analyse(write(tmp_path / "end.mp4", [(wall(), 59.5), (person()[0], 1.5)]), analyser)
    (face,) = report.faces
    (span,) = face.spans
    assert span.start_s == pytest.approx(59.5, abs=1.1)
    assert span.end_s == pytest.approx(61, abs=0.2)
    assert report.verdict.reasons[-1].text.startswith("60 frames of 61.0 s were looked at, one every 1 s")
    assert report.to_dict()["spans"] == [{"start_s": span.start_s, "end_s": span.end_s}]
    nobody = analyse(write(tmp_path / "wall.mp4", [(wall(), 20)]), analyser)
    assert (nobody.verdict.outcome, codes(nobody)) == (Outcome.NO_FACE, ["no_face", "seen"])
    assert "20 frames of 20.0 s" in nobody.verdict.reasons[-1].text


def test_two_people_across_cuts_are_two(analyser: Analyser, tmp_path: Path) -> None:
    """Both in the middle of the picture: by their boxes alone they would be one."""
    first, second = person()[0], np.roll(other_person()[0], (-64, 4), (0, 1))
    report = analyse(write(tmp_path / "cuts.mp4", [(first, 10), (second, 6), (first, 8)]), analyser)
    assert len(report.faces) == 2
    short = min(report.faces, key=lambda face: len(face.frames))
    other = next(face for face in report.faces if face is not short)
    (span,) = short.spans
    assert (span.start_s, span.end_s) == (pytest.approx(10, abs=0.6), pytest.approx(16, abs=0.6))
    assert {round(frame.time_s) in range(10, 17) for frame in other.frames} <= {False, True}
    assert len(other.frames) == 18
    assert report.settings["max_frames"] == 60


class _Suspicious:
    """The engine of an analyser, which finds frames from one to another much more suspicious."""

    def __init__(self, engine: Engine, start: int, stop: int) -> None:
        self._engine, self._part = engine, slice(start, stop)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, crops: list[Pixels], on_batch: Any = None) -> Answers:
        answers = self._engine.run(crops, on_batch)
        logits = np.random.default_rng(1).normal(-2, 0.2, answers.logits.shape).astype(np.float32)
        logits[np.isnan(answers.logits)] = np.nan
        logits[self._part] += 12
        return Answers(logits, None, answers.tokens)


def test_a_part_that_stands_apart_is_never_real_and_told(analyser: Analyser, tmp_path: Path) -> None:
    clip = write(tmp_path / "part.mp4", [(person()[0], 30)])
    one_piece = analyse(clip, dataclasses.replace(analyser, engine=_Suspicious(analyser.engine, 0, 0)))  # type: ignore[arg-type]
    assert "in_part" not in codes(one_piece)
    report = analyse(clip, dataclasses.replace(analyser, engine=_Suspicious(analyser.engine, 12, 18)))  # type: ignore[arg-type]
    (face,) = report.faces
    (span,) = face.spans
    assert (span.start_s, span.end_s) == (pytest.approx(12, abs=0.6), pytest.approx(18, abs=0.6))
    assert report.verdict.outcome in (Outcome.FAKE, Outcome.INCONCLUSIVE)
    assert codes(report)[0] == "in_part"
    assert "From 12.0 to 18.0 s the frames of this person stand apart" in report.verdict.reasons[0].text
    assert report.verdict.probability > one_piece.verdict.probability
