"""What docs/operations.md says of backups: a dump of the database and the bucket bring everything back."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask

from benchmarks.servers import S3, Postgres, temporary
from tests.web_app.feedback.hand_in import say
from tests.web_app.helpers import make_settings, running_worker
from web_app.db.models import JournalRow
from web_app.services import EXTENSION


def test_a_dump_and_the_bucket_bring_everything_back(
    make_app: Callable[..., Flask], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in S3.KEYS.items():
        monkeypatch.setenv(name, value)
    with temporary(Postgres) as server, temporary(S3) as s3:
        bucket = s3.bucket("kept")

        def application(name: str, database: str) -> Flask:
            plain = make_settings(tmp_path / name)
            url = server.url.removesuffix("postgres") + database
            storage = dataclasses.replace(plain.storage, database_url=url, files="s3", s3_url=bucket)
            return make_app(dataclasses.replace(plain, storage=storage))

        def run(program: str, *arguments: str, text: bytes = b"") -> bytes:
            place = ["-h", "127.0.0.1", "-p", str(server.port), "-U", "telltale"]
            command = [server.programs / program, *place, *arguments]
            return subprocess.run(command, input=text, capture_output=True, check=True).stdout

        first = application("first", "postgres")
        with running_worker(first.extensions[EXTENSION].settings):
            public_id, answer = say(first.test_client(), "fake", "real")
        assert answer.status_code == 201
        dump = run("pg_dump", "postgres")

        run("createdb", "restored")
        run("psql", "-q", "-v", "ON_ERROR_STOP=1", "restored", text=dump)
        second = application("second", "restored")
        parts, client = second.extensions[EXTENSION], second.test_client()
        assert parts.secret == first.extensions[EXTENSION].secret
        report = first.test_client().get(f"/api/detections/{public_id}").get_json()
        assert client.get(f"/api/detections/{public_id}").get_json() == report
        assert client.get("/api/rl/stats").get_json()["feedback"]["total"] == 1
        with parts.database.read() as session:
            assert session.scalar(sa.select(sa.func.count()).select_from(JournalRow)) == 1
        assert parts.store.size(next(name for name, _ in parts.store.files())) == report["media"]["size_bytes"]
