"""Store against database: every disagreement is found and can be set right."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from tests.web_app.helpers import job_state, media_bytes, upload
from utils.config import Settings
from web_app.db.models import DetectionRow, JobRow, MediaRow
from web_app.jobs.supervisor import settings_environ
from web_app.services import Services
from web_app.storage import check
from web_app.storage.consistency import find_faults, repair, sweep_without_row


@pytest.fixture
def stored(client: FlaskClient, parts: Services) -> tuple[str, Path]:
    """The id of a waiting analysis and its file."""
    public_id = upload(client, media_bytes("mp4")).get_json()["id"]
    with parts.database.read() as session:
        return public_id, parts.store.path(session.scalars(sa.select(MediaRow.stored_name)).one())


def kinds(parts: Services) -> list[str]:
    return [fault.kind for fault in find_faults(parts.database, parts.store)]


def damage(parts: Services, path: Path, kind: str) -> None:
    if kind == "file_without_row":
        (path.parent / f"{'a' * 64}-00000000").write_bytes(b"x")
    elif kind == "row_without_file":
        path.unlink()
    elif kind == "other_content":
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    elif kind == "half_file":
        half = parts.store.folder / "rest.part"
        half.write_bytes(b"x")
        os.utime(half, (1, 1))
    elif kind == "derived_without_file":
        (path.parent / "gone-1.thumb").write_bytes(b"x")
    else:
        with parts.database.write() as session:
            session.execute(sa.delete(DetectionRow))
            session.execute(sa.delete(JobRow))


KINDS = (
    "file_without_row",
    "row_without_file",
    "other_content",
    "half_file",
    "derived_without_file",
    "row_without_analysis",
)


@pytest.mark.parametrize("kind", KINDS)
def test_each_fault_is_found_and_repaired(
    client: FlaskClient, parts: Services, stored: tuple[str, Path], kind: str
) -> None:
    assert kinds(parts) == []
    damage(parts, stored[1], kind)
    found = list(find_faults(parts.database, parts.store))
    assert [fault.kind for fault in found] == [kind]
    repair(parts.database, parts.store, found[0])
    if kind in ("row_without_file", "other_content"):
        assert job_state(client, stored[0]) == "failed"
        assert kinds(parts) == ["row_without_file"]  # the report stays, the file does not come back
    else:
        assert kinds(parts) == []


def test_the_command_tells_and_repairs(
    settings: Settings, parts: Services, stored: tuple[str, Path], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name, value in settings_environ(settings).items():
        monkeypatch.setenv(name, value)
    assert check.main([]) == 0
    damage(parts, stored[1], "file_without_row")
    assert check.main([]) == check.EXIT_FAULTS
    assert "file_without_row" in capsys.readouterr().out
    assert check.main(["--repair"]) == 0
    assert check.main(["--quick"]) == 0


def test_the_start_sweeps_old_files_without_a_row(parts: Services, stored: tuple[str, Path]) -> None:
    old, young = (stored[1].parent / f"{letter * 64}-00000000" for letter in "ab")
    for path in (old, young):
        path.write_bytes(b"x")
    os.utime(old, (1, 1))
    assert sweep_without_row(parts.database, parts.store) == 1
    assert (old.exists(), young.exists(), stored[1].exists()) == (False, True, True)


def test_a_living_upload_is_not_swept(parts: Services) -> None:
    with parts.store.incoming() as incoming:
        incoming.write(media_bytes())
        (half,) = parts.store.half_files()
        os.utime(half, (1, 1))
        assert parts.store.sweep_cut_off() == 0
        assert incoming.finish().size_bytes == 300


def test_nobody_else_may_read(parts: Services, stored: tuple[str, Path]) -> None:
    assert stored[1].stat().st_mode & 0o777 == 0o600
    for folder in (parts.paths.instance, parts.store.folder, stored[1].parent):
        assert folder.stat().st_mode & 0o777 == 0o700
