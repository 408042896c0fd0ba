"""Clips of which only a part matters: a face at the end, a cut to somebody else, a stretch that stands apart."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.utils.faces.people import other_person, person
from tests.utils.media.films import write_clip
from utils.detection import pipeline
from utils.detection.closeup import look_closer
from utils.detection.engine import Answers, Engine, TrackScores
from utils.detection.moments import differing_part, format_spans, part_notice, runs, seen_notice, spans_of
from utils.detection.pipeline import Analyser, analyse
from utils.types import Box, Frame, Media, MediaInfo, MediaKind, Outcome, Pixels, Span

RATE = 2


def write(path: Path, scenes: list[tuple[Pixels, float]]) -> Path:
    """A clip of still scenes with their seconds, each a little livelier than a photograph."""
    rng = np.random.default_rng(5)
    still = [picture[::2, ::2] for picture, seconds in scenes for _ in range(round(seconds * RATE))]
    moved = [np.roll(picture, tuple(rng.integers(-1, 2, 2)), (0, 1)) for picture in still]
    write_clip(path, moved, RATE, "libx264", crf="20", g="10")
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


# Photos and clips that lie on their side or stand on their head, without a tag that says so.


def saved(path: Path, pixels: Pixels, turn: int) -> Path:
    Image.fromarray(np.ascontiguousarray(np.rot90(pixels, turn))).save(path)
    return path


def turned_box(box: Box, pixels: Pixels, turn: int) -> tuple[int, int, int, int]:
    """Where a box of a picture lies once the picture is turned, in whole pixels."""
    place = np.zeros(pixels.shape[:2], bool)
    place[round(box.y0) : round(box.y1), round(box.x0) : round(box.x1)] = True
    rows, columns = np.nonzero(np.rot90(place, turn))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_turned_photo_gets_the_score_of_the_upright_one(analyser, photo, tmp_path, turn):
    wide = photo[:400]
    upright = analyse(saved(tmp_path / "upright.png", wide, 0), analyser)
    turned = analyse(saved(tmp_path / "turned.png", wide, turn), analyser)
    assert turned.verdict.probability == upright.verdict.probability
    assert ([n.code for n in turned.notices], upright.notices) == (["turned"], ())
    assert (turned.media.width, turned.media.height) == ((400, 512) if turn % 2 else (512, 400))
    box = turned.faces[0].frames[0].box
    where = turned_box(upright.faces[0].frames[0].box, wide, turn)
    assert (box.x0, box.y0, box.x1, box.y1) == pytest.approx(where, abs=1)


def test_turned_clip_without_a_matrix_is_judged_upright(analyser, photo, tmp_path):
    small = cv2.resize(photo, (256, 256), interpolation=cv2.INTER_AREA)
    write_clip(tmp_path / "turned.mp4", [np.rot90(np.roll(small, 3 * i, axis=1)) for i in range(6)])
    report = analyse(tmp_path / "turned.mp4", analyser)
    assert "turned" in {n.code for n in report.notices}
    (face,) = report.faces
    assert len(face.frames) == 6
    assert all(f.box.width > f.box.height for f in face.frames), "the box lies as the head does in the clip"


def test_head_that_no_turn_sets_upright_is_not_judged(analyser, photo, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "find_turn", lambda *given: 0)
    report = analyse(saved(tmp_path / "lies.png", photo, 1), analyser)
    assert (report.verdict.outcome, report.verdict.reasons[0].code) == (Outcome.INCONCLUSIVE, "face_turned")


def test_closer_look_lies_over_the_photo_as_it_is_shown(analyser, photo, tmp_path):
    upright, *others = (look_closer(saved(tmp_path / f"{n}.png", photo, n), analyser, 0) for n in range(3))
    for turn, turned in enumerate(others, start=1):
        square = turned.square
        assert (square.x0, square.y0, square.x1, square.y1) == turned_box(upright.square, photo, turn)
        for lying, standing in zip(turned.maps, upright.maps, strict=True):
            if standing.grid is not None:
                assert np.array_equal(lying.grid, np.rot90(standing.grid, turn))


# Parts of a clip that stand out, when somebody is seen, and how much was looked at.

RNG = np.random.default_rng(26)


def levels(count: int, parts: list[tuple[int, int]], low: float = -3.5, high: float = -1.0) -> np.ndarray:
    """Frame logits with noise as real clips have it (.5), higher within the parts."""
    out = low + 0.5 * RNG.standard_normal(count)
    for start, stop in parts:
        out[start:stop] += high - low
    return out.astype(np.float32)


def media(count: int, seconds: float, kind: MediaKind = MediaKind.VIDEO) -> Media:
    video = kind is MediaKind.VIDEO
    info = MediaInfo(
        kind=kind, format="mp4", mime="video/mp4", width=64, height=48, size_bytes=1, sha256="0" * 64,
        duration_s=seconds if video else None,
    )  # fmt: skip
    pixels = np.zeros((48, 64, 3), np.uint8)
    times = [seconds * (i + 0.5) / count if video else 0.0 for i in range(count)]
    return Media(info, tuple(Frame(i, time, pixels) for i, time in enumerate(times)))


@pytest.mark.parametrize("parts", [[(20, 27)], [(0, 6)], [(42, 48)], [(12, 36)], [(5, 10), (30, 36)]])
def test_parts_are_found_where_they_are(parts: list[tuple[int, int]]) -> None:
    found = 0
    for _ in range(40):
        flags = differing_part(levels(48, parts))
        found += flags is not None and all(
            abs(a - c) <= 1 and abs(b - d) <= 1 for (a, b), (c, d) in zip(runs(flags), parts, strict=False)
        )
    assert found >= 36


@pytest.mark.parametrize("count", [4, 16, 48])
def test_noise_and_slow_changes_are_no_part(count: int) -> None:
    """The largest of many windows is higher by chance; a person who comes nearer changes bit by bit."""
    drift = np.linspace(-0.75, 0.75, count)
    assert sum(differing_part(levels(count, [])) is not None for _ in range(400)) <= 2
    assert sum(differing_part((levels(count, []) + drift).astype(np.float32)) is not None for _ in range(200)) <= 4


def test_one_or_two_frames_are_no_part() -> None:
    assert all(differing_part(levels(48, [(20, 20 + n)], high=2.0)) is None for n in (1, 2) for _ in range(20))
    assert differing_part(np.full(16, -2, np.float32)) is None


def test_spans_are_those_of_the_part_or_of_the_person() -> None:
    clip = media(60, 60.0)
    part = np.zeros(60, bool)
    part[[*range(25, 34), *range(40, 44)]] = True
    assert spans_of(range(60), clip, part) == (Span(25.0, 34.0), Span(40.0, 44.0))
    assert spans_of(range(60), clip, None) == ()
    assert spans_of([*range(25), *range(34, 59)], clip, None) == ()  # seen from the beginning to the end
    assert spans_of(range(25, 34), clip, None) == (Span(25.0, 34.0),)
    assert spans_of([*range(3, 10), *range(20, 25)], clip, None) == (Span(3.0, 10.0), Span(20.0, 25.0))
    thinned = [60 * i // 48 for i in range(48)]
    assert spans_of(thinned[20:30], clip, None) == (Span(25.0, 37.0),)
    assert spans_of([0], media(1, 0, MediaKind.IMAGE), None) == ()


def test_the_sentences() -> None:
    part = np.array([False] * 6 + [True] * 4)
    share = np.zeros(4, np.float32)
    scores = TrackScores(0.0, share, share, np.where(part, 0, np.log(1 / 9)).astype(np.float32), part)
    notice = part_notice(scores, (Span(6, 10),))
    assert notice is not None
    assert notice.code == "in_part"
    assert notice.text.startswith("From 6.0 to 10.0 s the frames of this person stand apart: 50 % there, 10 % in")
    assert part_notice(TrackScores(0.0, share, share, share), ()) is None
    (seen,) = seen_notice(media(60, 600.0), 9, (Span(25, 34),))
    assert seen.text == (
        "60 frames of 600.0 s were looked at, one every 10 s; this person was judged in 9 of them, "
        "from 25.0 to 34.0 s. What is shorter than that may have been missed."
    )
    (nobody,) = seen_notice(media(16, 3.2), 0, ())
    assert nobody.text == "16 frames of 3.2 s were looked at, one every 0.2 s."
    assert seen_notice(media(1, 0, MediaKind.IMAGE), 1, ()) == ()
    assert format_spans((Span(1, 2), Span(3, 4))) == "From 1.0 to 2.0 s and from 3.0 to 4.0 s"
