"""Results as text: what cannot be in JSON or in a terminal is made safe, and writing is all or nothing."""

from __future__ import annotations

import csv
import dataclasses
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.web_app.helpers import make_report
from utils.detection import cli_output
from utils.detection.cli_output import (
    FileResult,
    format_csv,
    format_table,
    summary_sentence,
)
from utils.errors import MediaCorruptError
from utils.log import escape
from utils.types import MediaKind, Outcome, Span


@given(st.text())
def test_printable_text_is_printable_utf8(text):
    safe = escape(text)
    assert safe.isprintable()
    safe.encode("utf-8")


@given(st.text(alphabet=st.characters(categories=("L", "N", "P"))))
def test_ordinary_names_stay_as_they_are(text):
    assert escape(text) == text


def test_result_is_a_report_or_an_error():
    with pytest.raises(ValueError, match="either"):
        FileResult(Path("a"), None, None, 0.0)


def test_undecodable_name_can_be_listed_in_every_form():
    result = FileResult(Path(os.fsdecode(b"\xff.jpg")), None, MediaCorruptError("Bad."), 1.0)
    for text in (format_table([result]), format_csv([result]), cli_output.format_json_line(result)):
        text.encode("utf-8")
        assert r"\udcff.jpg" in text.replace("\\\\", "\\")


@pytest.mark.parametrize("name", ["=1+1.jpg", "+1.jpg", "-1.jpg", "@x.jpg"])
def test_formula_names_point_to_the_same_file_in_csv(name):
    result = FileResult(Path(name), None, MediaCorruptError("Bad."), 1.0)
    assert format_csv([result]).splitlines()[1].startswith(f"./{name},error")


def test_error_detail_that_looks_like_a_formula_is_quoted_in_csv():
    result = FileResult(Path("a.jpg"), None, MediaCorruptError("=cmd()"), 1.0)
    assert ",'=cmd()," in format_csv([result])


def test_the_times_that_a_verdict_rests_on_are_told():
    report = make_report(kind=MediaKind.VIDEO)
    (face,) = report.faces
    spans = (Span(0.5, 1.25), Span(3, 4))
    part = dataclasses.replace(report, faces=(dataclasses.replace(face, spans=spans),))
    results = [FileResult(Path(f"{name}.mp4"), one, None, 1.0) for name, one in (("part", part), ("all", report))]
    assert [row["spans"] for row in csv.DictReader(format_csv(results).splitlines())] == ["0.5-1.25 3-4", ""]
    lines = format_table(results).splitlines()
    assert lines[1].endswith("part.mp4 (from 0.5 to 1.2 s and from 3.0 to 4.0 s)")
    assert lines[2].endswith("all.mp4")


def test_summary_counts():
    broken = FileResult(Path("a"), None, MediaCorruptError(), 0.0)
    assert summary_sentence([broken]) == "1 file: 1 failed"
    assert summary_sentence([]) == "0 files: none analysed"


def test_table_and_csv_say_how_many_faces_were_not_judged():
    report = make_report()
    (face,) = report.faces
    obstacle = dataclasses.replace(face.verdict, outcome=Outcome.INCONCLUSIVE)
    other = dataclasses.replace(face, id=1, verdict=obstacle, judged=False)
    result = FileResult(Path("two.jpg"), dataclasses.replace(report, faces=(face, other)), None, 1.0)
    assert "1 of 2" in format_table([result])
    (row,) = csv.DictReader(format_csv([result]).splitlines())
    assert (row["faces"], row["faces_not_judged"]) == ("2", "1")
