"""The keys that reports are signed with: made once, never shown, replaced without making old reports worthless."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.web_app.helpers import media_bytes, upload
from utils.config import Settings
from utils.errors import ConfigError
from utils.signatures import check_signature, read_keys
from web_app.__main__ import main
from web_app.paths import ROOT, InstancePaths
from web_app.reports.document import suspicious_stretches
from web_app.reports.keys import ReportKeys
from web_app.reports.printed import qr_code

WELL_KNOWN = "/.well-known/telltale-keys.json"
MAKE = "import sys; from pathlib import Path; from web_app.reports.keys import ReportKeys; "
MAKE += "print(ReportKeys.of(Path(sys.argv[1])).public()['keys'][0]['key'])"


def made(client: FlaskClient) -> str:
    return str(upload(client, media_bytes(), "/api/detect?wait=1").get_json()["id"])


def test_processes_that_start_together_get_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "report_keys.json"
    started = [
        subprocess.Popen([sys.executable, "-c", MAKE, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    keys = {process.communicate()[0].strip() for process in started}
    assert keys == {ReportKeys.of(path).public()["keys"][0]["key"]}
    assert path.stat().st_mode & 0o777 == 0o600
    assert [left.name for left in tmp_path.iterdir()] == [path.name]


def test_a_report_is_signed_with_the_published_key(served: FlaskClient) -> None:
    answer = served.get(WELL_KNOWN)
    assert answer.status_code == 200
    assert "private" not in answer.get_json()
    answered = served.get(f"/api/detections/{made(served)}/report")
    signature = check_signature(json.loads(answered.data), read_keys(answer.text))
    assert signature.state == "trusted"


def test_the_keys_are_public_where_others_need_a_key(make_app, settings: Settings) -> None:
    import dataclasses

    from utils.config import SecuritySettings

    app: Flask = make_app(dataclasses.replace(settings, security=SecuritySettings(keys="on")))
    assert app.test_client().get(WELL_KNOWN).status_code == 200
    assert app.test_client().get("/history").status_code == 303


def test_an_old_report_is_valid_after_its_key_was_replaced(
    served: FlaskClient, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = json.loads(served.get(f"/api/detections/{made(served)}/report").data)
    path = InstancePaths.of(settings).report_keys
    stolen = json.loads(path.read_bytes())["private"]
    monkeypatch.setenv("TELLTALE_STORAGE__INSTANCE_DIR", settings.storage.instance_dir)
    assert main(["rotate-key"]) == 0
    assert stolen not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600

    published = served.get(WELL_KNOWN)
    trusted, (present, retired) = read_keys(published.text), published.get_json()["keys"]
    assert present["key"] in capsys.readouterr().out
    assert (present["until"], retired["key"]) == (None, old["signature"]["key"])
    assert check_signature(old, trusted).state == "trusted"
    new = json.loads(served.get(f"/api/detections/{made(served)}/report").data)
    assert new["signature"]["key"] == present["key"]
    assert check_signature(new, trusted).state == "trusted"


@pytest.mark.parametrize("damage", ["", "{}", '{"private": "AAAA", "keys": []}', "swap"])
def test_damaged_keys_stop_the_start_with_a_sentence(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "report_keys.json"
    keys = ReportKeys.of(path)
    if damage == "swap":
        other = json.loads(path.read_bytes())["private"]
        keys.rotate()
        damage = json.dumps({**json.loads(path.read_bytes()), "private": other})
    path.write_text(damage)
    with pytest.raises(ConfigError, match="backup"):
        ReportKeys.of(path)


def test_printed_reports_carry_fingerprints_and_a_code_that_leads_to_the_result(served: FlaskClient) -> None:
    import hashlib

    from pypdf import PdfReader

    public_id = made(served)
    content = served.get(f"/api/detections/{public_id}/report").data
    html = served.get(f"/api/detections/{public_id}/report?format=html").text
    pdf = PdfReader(io.BytesIO(served.get(f"/api/detections/{public_id}/report?format=pdf").data))
    text = "".join("".join(page.extract_text() for page in pdf.pages).split())
    for fingerprint in (hashlib.sha256(content).hexdigest(), json.loads(content)["signature"]["key"]):
        assert fingerprint in html
        assert fingerprint in text
    address = f"http://localhost/detections/{public_id}"
    size, path = qr_code(address)
    assert path in html
    picture = np.full((size + 8, size + 8), 255, np.uint8)
    for move in path.split("M")[1:]:
        x, y = (int(number) for number in move.split("h")[0].split())
        picture[y + 4, x + 4] = 0
    # cv2.QRCodeDetector misses 3 % of such addresses at this size; this one read 3,000 of 3,000
    read, *_ = cv2.QRCodeDetectorAruco().detectAndDecode(picture.repeat(8, 0).repeat(8, 1))
    assert read == address


# What a report says of a recording.


def test_suspicious_windows_that_overlap_or_touch_are_one_stretch() -> None:
    judged = ((0.0, 0.9), (1.0, 0.2), (2.0, 0.8), (3.0, 0.5), (5.0, 0.6), (6.0, 0.7))
    windows = [{"start_s": start, "end_s": start + 2.0, "probability": p} for start, p in judged]
    assert suspicious_stretches({"windows": windows, "threshold": 0.5}) == [(0.0, 4.0), (5.0, 8.0)]
