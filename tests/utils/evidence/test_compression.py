"""Qualities of JPEGs: read off the tables, and found again after a second saving where that is promised."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import pytest
from PIL import Image
from skimage import data as pictures

from utils.evidence import words
from utils.evidence.compression import read_compression, standard_table

PICTURES = [Image.fromarray(getattr(pictures, name)()) for name in ("astronaut", "chelsea", "coffee", "rocket")]
FIRST, SECOND = (30, 45, 60, 75), (50, 65, 80, 90, 95)
ROBUSTNESS = Path(__file__).resolve().parents[3] / "docs" / "results" / "robustness.md"


def saved(image: Image.Image, quality: int) -> bytes:
    held = io.BytesIO()
    image.save(held, "JPEG", quality=quality)
    return held.getvalue()


def read(data: bytes) -> tuple[int, int | None, str]:
    found = read_compression(io.BytesIO(data))
    assert found is not None
    return found["quality"], found["quality_before"], found["tables"]


@pytest.mark.parametrize("quality", range(30, 96, 5))
def test_one_saving_has_its_quality_and_no_other(quality: int) -> None:
    for image in PICTURES:
        assert read(saved(image, quality)) == (quality, None, "standard")


def test_an_earlier_saving_at_a_clearly_lower_quality_is_found() -> None:
    """Within 2 of the true quality in nine of ten pairs that lie 10 apart or more; never a wrong one."""
    found = asked = 0
    for image in PICTURES:
        for first in FIRST:
            once = Image.open(io.BytesIO(saved(image, first)))
            for second in SECOND:
                _, before, _ = read(saved(once, second))
                if second >= first + 10:
                    asked += 1
                    found += before is not None
                assert before is None or abs(before - first) <= 2, (first, second, before)
    assert asked == 56
    assert found >= 0.9 * asked


def test_other_tables_than_the_standard_ones() -> None:
    held = io.BytesIO()
    own = [max(1, int(step) - 1) for step in standard_table(80)]
    PICTURES[0].save(held, "JPEG", qtables=[own, own])
    quality, before, tables = read(held.getvalue())
    assert (before, tables) == (None, "own")
    assert 78 <= quality <= 88


def test_resizing_in_between_leaves_no_grid() -> None:
    smaller = Image.open(io.BytesIO(saved(PICTURES[0], 50))).resize((400, 400))
    assert read(saved(smaller, 90)) == (90, None, "standard")


def test_a_file_without_pixels_to_look_at() -> None:
    for image in (Image.new("RGB", (40, 40), "white"), Image.new("L", (33, 64), 128), Image.new("CMYK", (40, 40))):
        assert read(saved(image, 60))[1:] == (None, "standard")


def test_a_large_picture_costs_no_more_than_its_middle() -> None:
    data = saved(PICTURES[0].convert("L").resize((6000, 4000)), 80)
    tracemalloc.start()
    assert read(data)[0] == 80
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60_000_000


def test_what_is_said_of_reliability_was_measured() -> None:
    """The numbers stand in the table of robustness, and no verdict went from fake to real there."""
    text = ROBUSTNESS.read_text(encoding="utf-8")
    assert "192 pictures" in text
    assert text.startswith("# Robustness of v7")
    rows = {cells[1].split("(")[0].strip(): cells for line in text.splitlines() if len(cells := line.split("|")) > 6}
    assert float(rows["clean"][4].strip(" %")) == words.CLEAN_ALARMS
    for quality, (changed, alarms) in words.MEASURED.items():
        _, _, _, _, false_alarms, flips, of_all, *_ = rows[f"JPEG {quality}"]
        assert (float(of_all.strip(" %")), float(false_alarms.strip(" %"))) == (changed, alarms)
        assert float(flips.strip(" %")) == 0.0


def test_the_sentences() -> None:
    saving, effect = words.compression(90, 40, "standard")
    assert saving == "The JPEG was saved at quality 90, after an earlier saving at about 40."
    assert "quality 50 (the nearest that was tested) changed 22.9 %" in effect
    assert "saving at quality 95 (the nearest" in words.compression(92, None, "standard")[1]
    assert "saving at quality 95 changed" in words.compression(95, None, "standard")[1]
    assert words.compression(88, None, "own")[0] == "The JPEG was saved at about quality 88, with tables of its own."
