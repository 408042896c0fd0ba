"""Parts of a clip that stand out, when somebody is seen, and how much was looked at."""

from __future__ import annotations

import numpy as np
import pytest

from utils.detection.engine import TrackScores
from utils.detection.moments import differing_part, format_spans, part_notice, runs, seen_notice, spans_of
from utils.types import Frame, Media, MediaInfo, MediaKind, Span

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
