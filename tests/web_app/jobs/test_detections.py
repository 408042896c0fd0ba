"""What crashes leave in the store is swept at the start, and nothing else; files are for their user only."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from tests.web_app.helpers import media_bytes, upload
from web_app.db.models import MediaRow
from web_app.jobs.detections import sweep_without_row
from web_app.services import Services


@pytest.fixture
def stored(client: FlaskClient, parts: Services) -> Path:
    """The file of a waiting analysis."""
    assert upload(client, media_bytes("mp4")).status_code == 202
    with parts.database.read() as session:
        return parts.store.path(session.scalars(sa.select(MediaRow.stored_name)).one())


def test_the_start_sweeps_old_files_without_a_row(parts: Services, stored: Path) -> None:
    old, young = (stored.parent / f"{letter * 64}-00000000" for letter in "ab")
    for path in (old, young):
        path.write_bytes(b"x")
    os.utime(old, (1, 1))
    rest, kept = stored.with_name("gone-1.thumb"), stored.with_name(f"{stored.name}.thumb")
    for path in (rest, kept):
        path.write_bytes(b"x")
    assert sweep_without_row(parts.database, parts.store) == 1
    assert (rest.exists(), kept.exists()) == (False, True)
    assert (old.exists(), young.exists(), stored.exists()) == (False, True, True)


def test_a_living_upload_is_not_swept(parts: Services) -> None:
    with parts.store.incoming() as incoming:
        incoming.write(media_bytes())
        (half,) = parts.store.folder.glob("*.part")
        os.utime(half, (1, 1))
        assert parts.store.sweep_cut_off() == 0
        assert incoming.finish().size_bytes == 300
