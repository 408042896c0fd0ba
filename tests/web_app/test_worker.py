"""The worker process as the server starts it, with tiny networks: an upload, its copy, and what is known of both."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from flask import Flask
from PIL import Image

from tests.web_app.helpers import make_settings, upload
from utils.config import DetectionSettings, WeightsSettings
from utils.types import Pixels
from web_app.jobs.supervisor import settings_environ
from web_app.paths import ROOT


def test_what_was_analysed_by_the_process_is_known_again(
    make_app: Callable[..., Flask], tiny_root: Path, tmp_path: Path, photo: Pixels
) -> None:
    settings = dataclasses.replace(
        make_settings(tmp_path), weights=WeightsSettings(dir=str(tiny_root)),
        detection=DetectionSettings(device="cpu", threads=1, engine="torch"),
    )  # fmt: skip
    client = make_app(settings).test_client()
    worker = subprocess.Popen(
        [sys.executable, "-m", "web_app", "worker"], cwd=ROOT, env={**os.environ, **settings_environ(settings)}
    )
    try:
        ids = []
        for quality in (95, 40):
            content = io.BytesIO()
            Image.fromarray(photo).save(content, "JPEG", quality=quality)
            answer = upload(client, content.getvalue(), "/api/detect?wait=1", name=f"{quality}.jpg")
            assert answer.status_code == 200, answer.text
            ids.append(answer.get_json()["id"])
    finally:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(180) == 0
    (found,) = client.get(f"/api/detections/{ids[1]}/seen").get_json()["items"]
    assert (found["id"], found["how"]) == (ids[0], "picture")
    with client.get(f"/api/detections/{ids[0]}/media") as copy:
        assert copy.status_code == 200
