"""The commands of the server: what they print, and with which code they end."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from PIL import Image

from tests.web_app.helpers import make_settings, upload
from utils.config import DetectionSettings, Settings, WeightsSettings
from utils.types import Pixels
from web_app.__main__ import EXIT_CONFIG, EXIT_UNABLE, main
from web_app.jobs.supervisor import settings_environ
from web_app.paths import ROOT, InstancePaths


def test_keys_are_made_listed_and_revoked(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in settings_environ(settings).items():
        monkeypatch.setenv(name, value)

    def command(*arguments: str) -> tuple[int, str]:
        code, told = main(["keys", *arguments]), capsys.readouterr()
        return code, told.err if code else told.out

    code, made = command("create", "desk", "--scopes", "analyse,admin")
    public = made.split("_")[1]
    assert code == 0
    _, listed = command("list")
    assert public in listed
    assert "in use" in listed
    assert "analyse,admin" in listed
    assert made.strip().rpartition("_")[2] not in listed
    assert command("revoke", public)[0] == 0
    assert "revoked" in command("list")[1]
    assert command("revoke", public)[0] == EXIT_UNABLE
    code, refused = command("create", "desk", "--scopes", "root,analyse")
    assert (code, "There is no scope 'root'. Scopes are analyse, feedback" in refused) == (EXIT_UNABLE, True)
    for days in ("-1", "9999999"):
        code, refused = command("create", "desk", "--days", days)
        assert (code, f"cannot be valid for {days} days. Name" in refused) == (EXIT_UNABLE, True)


@pytest.mark.parametrize("command", ["serve", "worker", "keys", "rebuild"])
def test_a_wrong_configuration_is_said(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    task = ["list"] if command == "keys" else []
    assert main([command, "--config", "/nonexistent.ini", *task]) == EXIT_CONFIG
    assert "nonexistent" in capsys.readouterr().err


def test_a_port_that_is_none_is_refused_as_in_the_configuration(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in settings_environ(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("web_app.serve.serve", lambda *_, **__: 0)
    assert main(["serve", "--port", "99999"]) == EXIT_CONFIG
    assert "port must lie in 1..65535" in capsys.readouterr().err


def test_what_a_command_writes_is_for_its_user_only(settings: Settings) -> None:
    subprocess.run(
        [sys.executable, "-m", "web_app", "keys", "list"], cwd=ROOT, check=True, preexec_fn=lambda: os.umask(0o022),
        env={**os.environ, **settings_environ(settings)},
    )  # fmt: skip
    if not settings.storage.database_url.startswith("postgresql"):
        assert InstancePaths.of(settings).database.stat().st_mode & 0o777 == 0o600


# The worker process as the server starts it, with tiny networks: an upload, its copy, and what is known of both.


def test_what_was_analysed_by_the_process_is_known_again(
    make_app: Callable[..., Flask], tiny_root: Path, tmp_path: Path, photo: Pixels
) -> None:
    settings = dataclasses.replace(
        make_settings(tmp_path), weights=WeightsSettings(dir=str(tiny_root)),
        detection=DetectionSettings(device="cpu", threads=1, engine="openvino"),
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
