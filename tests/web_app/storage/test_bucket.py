"""Files in a bucket: one way through everything, workers that share nothing but database and bucket, and its absence.

Each is tried with two servers: nanio keeps files on the disk and checks signatures, moto knows most of S3's ways.
"""

from __future__ import annotations

import dataclasses
import hashlib
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from benchmarks.servers import S3, Moto, temporary
from tests.web_app.helpers import (
    fake_analyse,
    job_state,
    make_settings,
    media_bytes,
    running_worker,
    upload,
    wait_until,
)
from utils.config import Settings
from utils.errors import ConfigError, MediaCorruptError
from utils.types import Report
from web_app.jobs.detections import sweep_without_row
from web_app.jobs.runner import Progress
from web_app.paths import InstancePaths
from web_app.services import Services
from web_app.storage.bucket import PREFIX, Bucket, BucketStore, open_store
from web_app.storage.files import CLEAN_SUFFIX, FRAMES_SUFFIX, THUMBNAIL_SUFFIX, MediaStore, write_beside


@pytest.fixture(scope="module", params=[S3, Moto])
def server(request: pytest.FixtureRequest) -> Iterator[S3]:
    with pytest.MonkeyPatch.context() as patch, temporary(request.param) as running:
        for name, value in S3.KEYS.items():
            patch.setenv(name, value)
        yield running


@pytest.fixture
def settings(tmp_path: Path, server: S3) -> Settings:
    name = hashlib.sha256(str(tmp_path).encode()).hexdigest()[:16]
    return in_bucket(make_settings(tmp_path), server.bucket(name))


def in_bucket(settings: Settings, url: str) -> Settings:
    return dataclasses.replace(settings, storage=dataclasses.replace(settings.storage, files="s3", s3_url=url))


@pytest.fixture
def bucket(parts: Services) -> Bucket:
    assert isinstance(parts.store, BucketStore)
    return parts.store.bucket


def analyse_and_share(store: MediaStore, path: Path, progress: Progress) -> Report:
    """The fake analysis with what the real worker makes beside it."""
    report = fake_analyse(path, progress)
    for suffix, content in ((THUMBNAIL_SUFFIX, b"thumb"), (FRAMES_SUFFIX, b"{}"), (CLEAN_SUFFIX, b"clean")):
        write_beside(path, suffix, lambda file, content=content: file.write(content))  # type: ignore[misc]
    store.share(f"{path.parent.name}/{path.name}", report.media.mime)
    return report


def on_another_machine(settings: Settings, tmp_path: Path) -> Settings:
    """The same database and bucket, but an instance folder of its own."""
    url = settings.storage.database_url or f"sqlite:///{InstancePaths.of(settings).database}"
    storage = dataclasses.replace(settings.storage, instance_dir=str(tmp_path / "elsewhere"), database_url=url)
    made = dataclasses.replace(settings, storage=storage)
    InstancePaths.of(made).create()
    return made


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_worker_shares_database_and_bucket_only(
    client: FlaskClient, settings: Settings, parts: Services, bucket: Bucket, tmp_path: Path
) -> None:
    content = media_bytes("mp4", size=300_000)
    public_id = upload(client, content).get_json()["id"]
    assert files_in(InstancePaths.of(settings).uploads) == []
    (name,) = (key for key, _ in bucket.keys(PREFIX))
    there = on_another_machine(settings, tmp_path)
    with running_worker(there, partial(analyse_and_share, open_store(there))):
        wait_until(lambda: job_state(client, public_id) == "done")
    assert files_in(InstancePaths.of(there).uploads) == []
    assert {key for key, _ in bucket.keys(PREFIX)} == {name + suffix for suffix in ("", ".thumb", ".frames", ".clean")}
    with client.get(f"/api/detections/{public_id}/thumbnail") as answer:
        assert answer.data == b"thumb"
    assert client.get("/api/history").get_json()["items"][0]["thumbnail"]
    answer = client.get(f"/api/detections/{public_id}/media")
    assert answer.status_code == 302
    with urllib.request.urlopen(answer.headers["Location"]) as handed:
        assert (handed.read(), handed.headers["Content-Type"]) == (b"clean", "video/mp4")
        assert handed.headers["Content-Disposition"].startswith("attachment")
    head = client.head(f"/api/detections/{public_id}/media")
    assert (head.status_code, head.headers["Content-Length"]) == (200, "5")
    assert client.delete(f"/api/detections/{public_id}").status_code == 204
    assert list(bucket.keys(PREFIX)) == []


def test_the_pages_policy_names_the_bucket(client: FlaskClient, bucket: Bucket) -> None:
    policy = client.get("/").headers["Content-Security-Policy"]
    assert f"img-src 'self' {bucket.origin} blob: data:; media-src 'self' {bucket.origin} blob:;" in policy


def test_a_refused_upload_leaves_nothing(client: FlaskClient, settings: Settings, bucket: Bucket) -> None:
    assert upload(client, b"no picture").status_code == 415
    assert upload(client, media_bytes("mp4"), "/api/detect/image").status_code == 415
    assert list(bucket.keys(PREFIX)) == files_in(InstancePaths.of(settings).uploads) == []


def test_the_same_bytes_are_kept_once(client: FlaskClient, bucket: Bucket) -> None:
    for _ in range(2):
        assert upload(client, media_bytes("mp4")).status_code == 202
    assert len(list(bucket.keys(PREFIX))) == 1


def test_files_without_a_row_are_swept(
    parts: Services, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_bytes(b"x")
    for suffix in ("", ".thumb"):
        bucket.put(tmp_path / "x", f"{PREFIX}ab/{'ab' * 32}-00000000{suffix}")
    assert sweep_without_row(parts.database, parts.store) == 0  # young
    monkeypatch.setattr("web_app.jobs.detections.YOUNG_S", -1.0)
    assert sweep_without_row(parts.database, parts.store) == 1
    assert list(bucket.keys(PREFIX)) == []


def test_a_file_that_came_damaged_is_not_used(parts: Services, bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"not what its name says")
    name = f"ab/{'ab' * 32}-00000000"
    bucket.put(tmp_path / "x", PREFIX + name)
    with pytest.raises(MediaCorruptError):  # which ends a job; a store that is away would bring it back for ever
        parts.store.path(name)
    assert not parts.store.path("cd/gone-00000000").exists()


def test_a_large_file_goes_in_parts_and_comes_back_whole(parts: Services, bucket: Bucket, tmp_path: Path) -> None:
    content = bytes(range(256)) * 80_000  # 20 MB
    (tmp_path / "large").write_bytes(content)
    bucket.put(tmp_path / "large", "large")
    assert bucket.size("large") == len(content)
    bucket.get("large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


def test_while_the_bucket_is_away_uploads_are_refused_and_jobs_wait(
    make_app: Callable[..., Flask],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("web_app.storage.bucket.TRIES", 1)
    for name, value in S3.KEYS.items():
        monkeypatch.setenv(name, value)
    with temporary(S3) as server:
        settings = in_bucket(make_settings(tmp_path), server.bucket("away"))
        client = make_app(settings).test_client()
        public_id = upload(client, media_bytes("mp4")).get_json()["id"]
        server.stop()
        refused = upload(client, media_bytes("mp4", size=301))
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
        with running_worker(settings, fake_analyse):
            wait_until(lambda: "back to the queue" in caplog.text)
            server.start()
            wait_until(lambda: job_state(client, public_id) == "done")


@pytest.mark.parametrize("url", ["", "s3.example.org/x", "https://s3.example.org", "https://s3.example.org/a/b"])
def test_an_address_without_a_bucket_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="s3_url"):
        Bucket(url)


def test_a_bucket_that_is_not_there_stops_the_start(make_app: Callable[..., Flask], tmp_path: Path, server: S3) -> None:
    settings = in_bucket(make_settings(tmp_path), f"http://127.0.0.1:{server.port}/nobody-made-it")
    with pytest.raises(ConfigError, match="nobody-made-it cannot be used"):
        make_app(settings)
