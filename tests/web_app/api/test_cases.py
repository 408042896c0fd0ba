"""Cases: whose they are, what is in them, their report and export, and that deleting deletes."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import html
import io
import json
import re
import subprocess
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event, inspect

from tests.web_app.helpers import (
    job_state,
    make_provenance,
    make_report,
    make_settings,
    media_bytes,
    running_worker,
    upload,
    wait_until,
)
from utils.config import SecuritySettings
from utils.detection.verify import claim_of, read_document, verify_report
from utils.errors import ReportError
from utils.signatures import canonical, check_signature, parse_unique, sign
from web_app.api import cases
from web_app.api.cases import CaseDocument
from web_app.auth.keys import create_key
from web_app.db.models import CaseItemRow, CaseRow, DetectionRow, MediaRow
from web_app.reports.cases import CHUNK_BYTES, build_case, export_lines
from web_app.reports.document import build_document
from web_app.reports.printed import render_html, render_pdf
from web_app.services import EXTENSION, Services
from web_app.storage.files import CLEAN_SUFFIX, MediaStore

EVIL = "<b>& x.png"
NOW = "2026-01-01T00:00:00+00:00"
CASE = CaseRow(public_id="0" * 32, title="One", notes="", created_at=dt.datetime.fromisoformat(NOW))


def opened(client: FlaskClient, **values: str) -> str:
    answer = client.post("/api/cases", json={"title": "Bär & Söhne", "notes": "First line.\nSecond.", **values})
    assert answer.status_code == 201, answer.text
    return str(answer.get_json()["id"])


def analysed(client: FlaskClient, order: str = "fake", name: str = "photo.png", **keywords: Any) -> str:
    return str(upload(client, media_bytes("png", order), "/api/detect?wait=1", name=name, **keywords).get_json()["id"])


def put(client: FlaskClient, case: str, detection: str, note: str = "", **keywords: Any) -> Any:
    return client.put(f"/api/cases/{case}/items/{detection}", json={"note": note}, **keywords)


@pytest.fixture
def filled(served: FlaskClient) -> str:
    case = opened(served)
    for order, name, note in (("fake", EVIL, "from the sender"), ("real", "second.png", "")):
        assert put(served, case, analysed(served, order, name), note).status_code == 200
    return case


def test_a_case_keeps_analyses_with_notes_in_their_order(served: FlaskClient, filled: str) -> None:
    found = served.get(f"/api/cases/{filled}").get_json()
    assert (found["title"], found["notes"], found["count"]) == ("Bär & Söhne", "First line.\nSecond.", 2)
    assert [(item["name"], item["note"], item["prediction"]) for item in found["items"]] == [
        (EVIL, "from the sender", "fake"), ("second.png", "", "real"),
    ]  # fmt: skip
    first = found["items"][0]["id"]
    changed = put(served, filled, first, "another note").get_json()
    assert [item["note"] for item in changed["items"]] == ["another note", ""]
    assert served.patch(f"/api/cases/{filled}", json={"notes": ""}).get_json()["notes"] == ""
    assert served.get(f"/api/cases/{filled}").get_json()["title"] == "Bär & Söhne"
    assert served.delete(f"/api/cases/{filled}/items/{first}").status_code == 204
    assert served.delete(f"/api/cases/{filled}/items/{first}").status_code == 404
    assert [case["count"] for case in served.get("/api/cases").get_json()["items"]] == [1]
    assert served.get(f"/api/detections/{first}").status_code == 200
    failed = put(served, filled, analysed(served, "corrupt")).get_json()["items"][-1]
    assert (failed["state"], failed["error"]["code"]) == ("failed", "media_corrupt")


def test_putting_an_analysis_in_again_keeps_its_note(served: FlaskClient, filled: str) -> None:
    first = served.get(f"/api/cases/{filled}").get_json()["items"][0]["id"]
    again = served.put(f"/api/cases/{filled}/items/{first}", json={}).get_json()
    assert [item["note"] for item in again["items"]] == ["from the sender", ""]
    assert put(served, filled, first, "").get_json()["items"][0]["note"] == ""


def test_a_case_tells_what_faces_and_voice_say_together(served: FlaskClient, filled: str) -> None:
    clip = upload(served, media_bytes("mp4", "real fake"), "/api/detect?wait=1", name="clip.mp4").get_json()["id"]
    items = served.put(f"/api/cases/{filled}/items/{clip}", json={}).get_json()["items"]
    assert [(item["prediction"], item["overall"], item["note"]) for item in items[1:]] == [
        ("real", None, ""), ("real", "fake", ""),
    ]  # fmt: skip


def test_a_case_is_told_without_loading_reports(served: FlaskClient, filled: str) -> None:
    loaded = []

    def note(row: DetectionRow, _: Any) -> None:
        loaded.append("report" not in inspect(row).unloaded)

    event.listen(DetectionRow, "load", note)
    try:
        served.get(f"/api/cases/{filled}")
    finally:
        event.remove(DetectionRow, "load", note)
    assert loaded == [False, False]


def test_deleting_an_analysis_takes_it_out_of_its_cases(served: FlaskClient, filled: str) -> None:
    first, second = (item["id"] for item in served.get(f"/api/cases/{filled}").get_json()["items"])
    assert served.delete(f"/api/detections/{first}").status_code == 204
    assert [item["id"] for item in served.get(f"/api/cases/{filled}").get_json()["items"]] == [second]


@pytest.mark.parametrize("analyses", [0, 1])
def test_deleting_a_case_deletes_and_its_analyses_only_if_asked(
    served: FlaskClient, filled: str, parts: Services, analyses: int
) -> None:
    ids = [item["id"] for item in served.get(f"/api/cases/{filled}").get_json()["items"]]
    assert served.delete(f"/api/cases/{filled}?analyses={analyses}").status_code == 204
    assert served.get(f"/api/cases/{filled}").status_code == 404
    assert {served.get(f"/api/detections/{each}").status_code for each in ids} == {404 if analyses else 200}
    assert len(list(parts.store.files())) == (0 if analyses else 2)
    with parts.database.read() as session:
        assert session.query(CaseItemRow).count() == 0


def test_limits(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "MOST_CASES", 1)
    monkeypatch.setattr(cases, "MOST_ITEMS", 1)
    case = opened(client)
    assert client.post("/api/cases", json={"title": "one more"}).status_code == 409
    ids = [upload(client, media_bytes("mp4", order)).get_json()["id"] for order in ("fake", "real")]
    assert [put(client, case, each).status_code for each in (*ids, ids[0])] == [200, 409, 200]
    assert client.patch(f"/api/cases/{case}", json={"title": " A \n"}).get_json()["title"] == "A"
    for wrong in ({}, {"title": ""}, {"title": "  "}, {"title": "x" * 201}, {"title": "x", "notes": "x" * 10_001}):
        assert client.post("/api/cases", json=wrong).status_code == 422
    assert put(client, case, ids[0], "x" * 2001).status_code == 422
    assert put(client, case, "nothing").status_code == 404


def test_others_see_and_change_nothing(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    settings = dataclasses.replace(make_settings(tmp_path), security=SecuritySettings(keys="on"))
    app = make_app(settings)
    database, client = app.extensions[EXTENSION].database, app.test_client()
    ann, bob, root = (
        {"Authorization": f"Bearer {create_key(database, 'k', scopes)}"}
        for scopes in (["analyse"], ["analyse"], ["analyse", "admin"])
    )
    with running_worker(settings):
        own = analysed(client, headers=ann)
        case = client.post("/api/cases", json={"title": "Ann's"}, headers=ann).get_json()["id"]
        assert put(client, case, own, headers=ann).status_code == 200
        of_bob = client.post("/api/cases", json={"title": "Bob's"}, headers=bob).get_json()["id"]
    path = f"/api/cases/{case}"
    for method, tried in (
        ("GET", path), ("DELETE", path), ("GET", f"{path}/report"), ("GET", f"{path}/export"),
        ("DELETE", f"{path}/items/{own}"),
    ):  # fmt: skip
        assert client.open(tried, method=method, headers=bob).status_code == 404, (method, tried)
    assert client.patch(path, json={"notes": "x"}, headers=bob).status_code == 404
    assert put(client, case, own, headers=bob).status_code == 404
    assert put(client, of_bob, own, headers=bob).status_code == 404  # somebody else's analysis in one's own case
    assert put(client, of_bob, own, headers=root).status_code == 404  # nor by an administrator, for Bob would read it
    of_root = client.post("/api/cases", json={"title": "Root's"}, headers=root).get_json()["id"]
    assert [put(client, each, own, headers=root).status_code for each in (case, of_root)] == [200, 200]
    titles = [
        [each["title"] for each in client.get("/api/cases", headers=who).get_json()["items"]] for who in (bob, root)
    ]
    assert titles == [["Bob's"], ["Root's", "Bob's", "Ann's"]]
    assert client.get(path, headers=ann).get_json()["count"] == 1


def test_one_report_for_all(served: FlaskClient, filled: str) -> None:
    from pypdf import PdfReader

    clip = upload(served, media_bytes("mp4", "real fake"), "/api/detect?wait=1", name="clip.mp4").get_json()["id"]
    put(served, filled, clip)
    waiting = upload(served, media_bytes("mp4", "sleep 60")).get_json()["id"]
    put(served, filled, waiting)
    wait_until(lambda: job_state(served, waiting) == "running")
    content = served.get(f"/api/cases/{filled}/report").data
    document = json.loads(content)
    jsonschema.Draft202012Validator(CaseDocument.model_json_schema()).validate(document)
    assert canonical(document) == content
    assert check_signature(document).state == "whole"
    assert [item["report"] is not None for item in document["items"]] == [True, True, True, False]
    assert [item["error"] for item in document["items"]] == [None] * 4
    assert document["reproduce"] == ".venv/bin/python inference.py --verify case.json FILE"
    page = served.get(f"/api/cases/{filled}/report?format=html").text
    pdf = served.get(f"/api/cases/{filled}/report?format=pdf&download=1")
    assert pdf.headers["Content-Disposition"] == f'attachment; filename="telltale-case-{filled[:12]}.pdf"'
    text = "".join("".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf.data)).pages).split())
    for said in (
        "Bär & Söhne",
        "Second.",
        "second.png",
        "Note: from the sender",
        "Faces and voice together",
        document["signature"]["key"],
    ):
        assert "".join(said.split()) in text
        assert said.replace("&", "&amp;") in page
    assert "<b>" not in page
    assert hashlib.sha256(content).hexdigest() in page


def test_report_and_export_say_why_a_file_failed(served: FlaskClient, filled: str) -> None:
    put(served, filled, analysed(served, "corrupt"))
    failed = json.loads(served.get(f"/api/cases/{filled}/report").data)["items"][-1]
    assert failed["error"].startswith("[media_corrupt] ")
    assert failed["error"] in html.unescape(served.get(f"/api/cases/{filled}/report?format=html").text)
    with zipfile.ZipFile(io.BytesIO(served.get(f"/api/cases/{filled}/export").data)) as archive:
        assert parse_unique(archive.read("manifest.json"))["missing"][-1]["why"] == failed["error"]


def test_what_a_file_states_of_itself_stands_at_its_verdict(client: FlaskClient) -> None:
    from pypdf import PdfReader

    report = dataclasses.replace(make_report(), provenance=make_provenance()).to_dict()
    unsigned = build_document({"id": "0" * 32, **report}, "a.png", NOW)
    item = {"name": "a.png", "note": "", "state": "done", "report": unsigned}
    document = sign(build_case(CASE, [item]), bytes(32))
    stated = "The file itself states that it was generated by ImageModel, signed by Example Signer."
    with client.application.test_request_context():
        page = render_html(document, None, "http://localhost/")
    assert f"<p><strong>{stated}</strong></p>" in page
    pages = PdfReader(io.BytesIO(render_pdf(page, "foot", "http://localhost/"))).pages
    assert "".join(stated.split()) in "".join("".join(page.extract_text() for page in pages).split())


def test_a_verdict_of_faces_and_voice_stands_beside_no_probability_of_faces(client: FlaskClient) -> None:
    verdict = {"headline": "Real.", "probability": 0.08}
    analysis = {"verdict": verdict, "overall": {"headline": "The voice is fake."}}
    item = {"name": "clip.mp4", "state": "done", "report": {"analysis": analysis}}
    of_faces = {"analysis": {"verdict": verdict}}
    facts: Any = client.application.jinja_env.get_template("facts.html").module
    cells = [re.findall(r">([^<>]+)</t[hd]>", facts.summary(each, 1)) for each in (item, {**item, "report": of_faces})]
    assert cells == [["1. clip.mp4", "The voice is fake.", "—"], ["1. clip.mp4", "Real.", "8.0 %"]]


def test_a_case_without_results_is_of_the_time_when_it_was_opened() -> None:
    """So that one signed before its key was retired stays valid."""
    signed = sign(build_case(CASE, []), bytes(32))
    assert signed["analysed"] == NOW
    assert check_signature(signed, {signed["signature"]["key"]: "2026-01-02T00:00:00+00:00"}).state == "trusted"


def test_the_export_is_whole_and_signed(served: FlaskClient, filled: str, parts: Services, tmp_path: Path) -> None:
    first = served.get(f"/api/cases/{filled}").get_json()["items"][0]
    stored = next(name for name, _ in parts.store.files() if first["sha256"] in name)
    copy = np.random.default_rng(0).bytes(3 * CHUNK_BYTES + 5)
    parts.store.path(stored, CLEAN_SUFFIX).write_bytes(copy)
    answer = served.get(f"/api/cases/{filled}/export")
    assert answer.mimetype == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.data)) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path)
        names = archive.namelist()
    assert names == [
        "case.json", "case.pdf", "reports/001-_b_x.json", "reports/001-_b_x.pdf", "media/001-_b_x.png",
        "reports/002-second.json", "reports/002-second.pdf", "SHA256SUMS", "manifest.json",
    ]  # fmt: skip
    assert (tmp_path / "media/001-_b_x.png").read_bytes() == copy
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=tmp_path, check=True)
    manifest = parse_unique((tmp_path / "manifest.json").read_bytes())
    assert check_signature(manifest).state == "whole"
    assert [each["name"] for each in manifest["missing"]] == ["second.png"]
    assert {each["name"] for each in manifest["files"]} == set(names) - {"manifest.json"}
    for name in ("case.json", "reports/001-_b_x.json"):
        assert check_signature(parse_unique((tmp_path / name).read_bytes())).state == "whole"

    listed = verify_report(tmp_path / "manifest.json", tmp_path / "media/001-_b_x.png", parts.settings)
    assert listed.reproduced
    assert "media/001-_b_x.png" in listed.sentences[-1]
    (tmp_path / "media/001-_b_x.png").write_bytes(copy[:-1])
    assert not verify_report(tmp_path / "manifest.json", tmp_path / "media/001-_b_x.png", parts.settings).same_file
    other = verify_report(tmp_path / "case.json", tmp_path / "case.pdf", parts.settings)
    assert (other.same_file, other.claim) == (False, None)
    with pytest.raises(ReportError):
        claim_of(read_document(tmp_path / "case.json")[0], "report")


def test_each_of_a_thousand_changed_bytes_of_a_manifest_is_found(served: FlaskClient, filled: str) -> None:
    with zipfile.ZipFile(io.BytesIO(served.get(f"/api/cases/{filled}/export").data)) as archive:
        content = archive.read("manifest.json")
    rng, missed = np.random.default_rng(1), []
    for _ in range(1000):
        at, flip = int(rng.integers(len(content))), int(rng.integers(1, 256))
        changed = content[:at] + bytes([content[at] ^ flip]) + content[at + 1 :]
        try:
            untrusted = parse_unique(changed)
            if check_signature(untrusted).state == "whole" and canonical(untrusted) == changed:
                missed.append(changed)
        except (ValueError, ReportError):
            continue
    assert missed == []


def test_an_export_holds_no_file_in_memory(tmp_path: Path, app: Flask) -> None:
    store, medium = MediaStore(tmp_path, 1), MediaRow(stored_name="large", format="mp4")
    with store.path("large", CLEAN_SUFFIX).open("wb") as file:
        file.truncate(200_000_000)
    document = build_case(
        CASE, [{"name": "large.mp4", "note": "", "state": "failed", "error": "[x] y", "report": None}]
    )
    lines = export_lines(document, [medium], store, lambda each: sign(each, bytes(32)), "http://localhost/")
    with app.test_request_context():
        for _ in range(4):  # fonts and the report are made
            next(lines)
        tracemalloc.start()
        sent = sum(map(len, lines))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sent > 199_000_000
    assert most < 8_000_000


def test_a_case_is_checked_file_by_file(
    served: FlaskClient, filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the report of many, the one about the file is replayed; here by what the fake worker says."""
    from utils.detection import verify

    report, file = tmp_path / "case.json", tmp_path / "second.png"
    report.write_bytes(served.get(f"/api/cases/{filled}/report").data)
    file.write_bytes(media_bytes("png", "real"))
    claims = []

    def replay(claim: Any, *_: Any) -> Any:
        claims.append(claim)
        raise ReportError("Nothing is replayed here.")

    monkeypatch.setattr(verify, "_replay", replay)
    with pytest.raises(ReportError, match="Nothing is replayed"):
        verify.verify_report(report, file, make_settings(tmp_path))
    assert [(claim.outcome, claim.probability) for claim in claims] == [("real", 0.08)]
