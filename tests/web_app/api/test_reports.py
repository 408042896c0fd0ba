"""Reports in all forms: the schema, what each must name, and names that try to be something else."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from typing import Any

import jsonschema
import pytest
from flask.testing import FlaskClient

from tests.web_app.helpers import make_provenance, make_report, media_bytes, upload
from utils.signatures import sign
from web_app.api.reports import ReportDocument
from web_app.paths import ROOT
from web_app.reports import document, printed
from web_app.reports.document import LIMITS

FORMS = ("json", "html", "pdf")


def made(client: FlaskClient, order: str = "fake", media_format: str = "png", name: str = "photo.png") -> str:
    return str(upload(client, media_bytes(media_format, order), "/api/detect?wait=1", name=name).get_json()["id"])


def report(client: FlaskClient, public_id: str, form: str = "json") -> bytes:
    answer = client.get(f"/api/detections/{public_id}/report?format={form}")
    assert answer.status_code == 200
    return bytes(answer.data)


def macros(client: FlaskClient) -> Any:
    """The macros that the pages of reports are made of."""
    return client.application.jinja_env.get_template("facts.html").make_module({"words": document})


def pdf_text(pdf: bytes) -> str:
    """What the pages draw, by way of each font's own table from glyphs to characters."""
    from pypdf import PdfReader

    return " ".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)


def test_no_printed_probability_is_certain_and_shares_stay_exact(client: FlaskClient) -> None:
    percent = macros(client).percent
    shown = [percent(p).unescape() for p in (None, 0.0, 0.0004, 0.0005, 0.5, 0.9994, 0.9996, 1.0)]
    assert shown == ["—", "< 0.1 %", "< 0.1 %", "0.1 %", "50.0 %", "99.9 %", "> 99.9 %", "> 99.9 %"]
    assert [percent(weight, True).unescape() for weight in (0.0, 1.0)] == ["0.0 %", "100.0 %"]


@pytest.mark.parametrize(
    ("order", "media_format"), [("fake", "png"), ("real", "jpeg"), ("no_face", "png"), ("inconclusive", "mp4")]
)
def test_a_report_fits_the_published_schema(served: FlaskClient, order: str, media_format: str) -> None:
    document = json.loads(report(served, made(served, order, media_format)))
    published = json.loads((ROOT / "docs" / "report.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(published).validate(document)
    assert document["sha256"] == document["analysis"]["media"]["sha256"]
    assert document["model"] == {"version": "v-test", "sha256": "0" * 64}
    assert document["limits"] == list(LIMITS)


@pytest.mark.parametrize("form", FORMS)
def test_the_same_analysis_gives_the_same_bytes(served: FlaskClient, form: str) -> None:
    public_id = made(served)
    assert report(served, public_id, form) == report(served, public_id, form)


@pytest.mark.parametrize("order", ["fake", "no_face"])
def test_every_form_names_input_version_verdict_and_limits(served: FlaskClient, order: str) -> None:
    public_id = made(served, order)
    sha256 = json.loads(report(served, public_id))["sha256"]
    html = re.sub(r"<[^>]+>", " ", report(served, public_id, "html").decode())
    pdf = report(served, public_id, "pdf")
    assert pdf.startswith(b"%PDF-")
    for text in (html, pdf_text(pdf)):
        flat = re.sub(r"\s+", "", text)
        said = [sha256, "v-test", "0" * 64, public_id, "A headline.", "photo.png", *LIMITS]
        if order == "fake":
            said += ["Probability of manipulation 93.0 %, 95 % interval 88.0 % to 98.0 %", "noise 93.0 % 100.0 %"]
            said += ["It needs a video. — —"]
        for part in said:
            assert re.sub(r"\s+", "", part) in flat, part


def test_names_stay_text_in_every_form(served: FlaskClient) -> None:
    name = "<b>&amp; 中文 ümläut.png"
    public_id = made(served, name=name)
    assert json.loads(report(served, public_id))["name"] == name
    html = report(served, public_id, "html").decode()
    assert "&lt;b&gt;&amp;amp; 中文 ümläut.png" in html
    assert "<b>" not in html
    assert "ümläut.png" in pdf_text(report(served, public_id, "pdf"))


def test_the_html_report_needs_no_script_and_has_no_inline_style(served: FlaskClient) -> None:
    html = report(served, made(served), "html").decode()
    assert "<script" not in html
    assert "style=" not in html
    for address in re.findall(r'(?:href|src)="([^"]+)"', html):
        with served.get(address) as answer:
            assert answer.status_code == (503 if address.endswith("/media") else 200), (
                address
            )  # no copies are made here


def test_a_video_has_its_timeline_and_no_picture(served: FlaskClient) -> None:
    html = report(served, made(served, "fake", "mp4"), "html").decode()
    assert "<image" not in html
    assert "4.00 s" in html


def test_the_times_that_a_verdict_rests_on_are_said_and_shaded(served: FlaskClient) -> None:
    verdict = {"probability": 0.5, "interval": [0.4, 0.6]}
    spans = [{"start_s": 10.0, "end_s": 20.0}, {"start_s": 36.0, "end_s": 41.0}]
    facts = macros(served)
    assert facts.person({"verdict": verdict, "spans": spans}).endswith("It is about 10.0 to 20.0 s and 36.0 to 41.0 s.")
    assert facts.person({"verdict": verdict}) == facts.sentence(verdict)
    analysis = {"id": "0" * 32, **make_report().to_dict(), "spans": spans}
    analysis["timeline"] = [{"time_s": time, "probability": 0.5} for time in (1.0, 20.0, 40.0)]
    made = sign(document.build_document(analysis, "clip.mp4", "2026-01-01T00:00:00+00:00"), bytes(32))
    with served.application.test_request_context():
        page = printed.render_html(made, None, "https://example.org/")
        of_before = printed.render_html(made | {"analysis": analysis | {"spans": []}}, None, "https://example.org/")
    places = re.findall(r'<rect x="([\d.]+)" y="0" width="([\d.]+)"', page)
    assert places == [("160.0", "160.0"), ("576.0", "64.0")]
    assert '<polyline points="16.0,60.0 320.0,60.0 640.0,60.0 "' in page
    assert "shaded" in page
    assert "shaded" not in of_before


def test_a_probability_that_corrections_moved_is_told_without_an_interval(served: FlaskClient) -> None:
    plain = make_report().to_dict()
    for verdict in (plain["verdict"], plain["faces"][0]["verdict"]):
        verdict["interval"] = None
    made = sign(document.build_document({"id": "0" * 32, **plain}, "p.png", "2026-01-01T00:00:00+00:00"), bytes(32))
    with served.application.test_request_context():
        page = printed.render_html(made, None, "https://example.org/")
    assert "93.0 %, moved by users' corrections, so that there is no interval." in page
    assert "95 % interval" not in page
    assert printed.render_pdf(page, "", "https://example.org/").startswith(b"%PDF")


def test_a_report_can_be_saved(served: FlaskClient) -> None:
    public_id = made(served)
    shown = served.get(f"/api/detections/{public_id}/report?format=pdf")
    saved = served.get(f"/api/detections/{public_id}/report?format=pdf&download=1")
    assert shown.headers["Content-Disposition"].startswith("inline;")
    assert saved.headers["Content-Disposition"] == f'attachment; filename="telltale-{public_id[:12]}.pdf"'


@pytest.mark.parametrize(("query", "status"), [("format=docx", 422), ("download=2", 422), ("x=1", 422)])
def test_other_forms_are_refused(served: FlaskClient, query: str, status: int) -> None:
    assert served.get(f"/api/detections/{made(served)}/report?{query}").status_code == status


def test_without_a_verdict_there_is_no_report(client: FlaskClient) -> None:
    public_id = upload(client, media_bytes("mp4")).get_json()["id"]
    assert client.get(f"/api/detections/{public_id}/report").status_code == 409
    assert client.get("/api/detections/nix/report").status_code == 404


def table(client: FlaskClient, query: str = "") -> list[dict[str, str]]:
    answer = client.get(f"/api/history.csv{query}")
    assert answer.mimetype == "text/csv"
    return list(csv.DictReader(io.StringIO(answer.get_data(as_text=True))))


def test_many_are_a_table(served: FlaskClient) -> None:
    ids = [made(served, order) for order in ("fake", "real", "no_face", "corrupt")]
    rows = table(served)
    assert [row["id"] for row in rows] == ids[::-1]
    assert [row["outcome"] for row in rows] == ["", "no_face", "real", "fake"]
    assert rows[0]["error_code"] == "media_corrupt"
    assert all(len(row["sha256"]) == 64 and row["limits"] for row in rows)
    assert rows[3]["model_sha256"] == "0" * 64
    verdict = json.loads(report(served, ids[0]))["analysis"]["verdict"]
    numbers = ("fake_probability", "interval_low", "interval_high", "faces", "width", "height")
    expected = [verdict["probability"], *verdict["interval"], 1, 640, 480]
    assert [float(rows[3][name]) for name in numbers] == expected
    assert [row["id"] for row in table(served, "?prediction=real")] == [ids[1]]
    assert [row["id"] for row in table(served, f"?ids={ids[0]},{ids[2]},nix")] == [ids[2], ids[0]]


def test_a_name_is_no_formula(served: FlaskClient) -> None:
    made(served, name="=cmd()|'x'.png")
    assert table(served)[0]["name"].startswith("'=")


def test_portions_leave_nothing_out(served: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web_app.api.reports.ROWS_AT_A_TIME", 2)
    ids = [str(upload(served, media_bytes(), "/api/detect?again=1").get_json()["id"]) for _ in range(5)]
    assert [row["id"] for row in table(served)] == ids[::-1]


def test_face_that_was_not_judged_is_printed_with_its_reason_and_no_number(served: FlaskClient) -> None:
    reasons = [{"code": "face_cut", "text": "The border of the picture cuts the face."}]
    verdict = {"outcome": "inconclusive", "probability": 0.98, "interval": (0.9, 1.0), "reasons": reasons}
    face = {"verdict": verdict, "judged": False}
    facts = macros(served)
    assert (facts.person(face), facts.tone(face)) == (reasons[0]["text"], "slate")
    before = {"verdict": verdict}  # a report of before does not say `judged`
    assert "98.0 %" in facts.person(before)
    assert facts.tone(before) == "amber"


@pytest.mark.parametrize("state", ["valid", "untrusted", "broken"])
def test_what_the_file_says_of_itself_is_printed_with_what_it_proves(served: FlaskClient, state: str) -> None:
    report = dataclasses.replace(make_report(), provenance=make_provenance(state))
    analysis = {"id": "0" * 32, **report.to_dict()}
    made = sign(document.build_document(analysis, "photo.png", "2026-01-01T00:00:00+00:00"), bytes(32))
    ReportDocument.model_validate_json(json.dumps(made))
    with served.application.test_request_context():
        page = printed.render_html(made, None, "https://example.org/detections/1")
    text = pdf_text(printed.render_pdf(page, "foot", "https://example.org/detections/1"))
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    for words in (" ".join(page.split()), " ".join(text.split())):
        assert "What the file says of itself" in words
        assert "Example Maker 1.0" in words
        assert "taken with Canon EOS R5. Anybody can write that; it never lowers suspicion." in words
        assert "after an earlier saving at about 40" in words
        assert ("assertion.dataHash.mismatch" in words) == (state == "broken")
        named = {"valid": "generated by ImageModel, signed by Example Signer.", "untrusted": "generated by ImageModel."}
        assert named.get(state, "generated by SwarmUI.") in words
