"""The commands of the server: what they print, and with which code they end."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from utils.config import Settings
from web_app.cli import EXIT_CONFIG, EXIT_UNABLE, main
from web_app.jobs.supervisor import settings_environ
from web_app.paths import ROOT, InstancePaths


def test_keys_are_made_listed_and_revoked(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in settings_environ(settings).items():
        monkeypatch.setenv(name, value)

    def command(*arguments: str) -> tuple[int, str]:
        code = main(["keys", *arguments])
        return code, capsys.readouterr().out

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
    assert command("create", "desk", "--scopes", "root")[0] == EXIT_UNABLE


@pytest.mark.parametrize("command", ["serve", "worker", "keys", "rebuild"])
def test_a_wrong_configuration_is_said(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    task = ["list"] if command == "keys" else []
    assert main([command, "--config", "/nonexistent.ini", *task]) == EXIT_CONFIG
    assert "nonexistent" in capsys.readouterr().err


def test_what_a_command_writes_is_for_its_user_only(settings: Settings) -> None:
    subprocess.run(
        [sys.executable, "-m", "web_app", "keys", "list"], cwd=ROOT, check=True, preexec_fn=lambda: os.umask(0o022),
        env={**os.environ, **settings_environ(settings)},
    )  # fmt: skip
    if not settings.storage.database_url.startswith("postgresql"):
        assert InstancePaths.of(settings).database.stat().st_mode & 0o777 == 0o600
