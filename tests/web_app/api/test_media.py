"""What is handed out of uploads: clean copies made by the worker, with ranges and tags; and nothing else, ever."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from PIL import Image

from tests.utils.media.films import decoded
from tests.web_app.helpers import make_report, media_bytes, running_worker, stored_files, upload, wait_until
from utils.config import Settings
from utils.media import start_fork_server
from utils.media.fork_server import ForkServer
from utils.media.sniff import sniff
from utils.types import Notice, Report
from web_app.api.detections import FAILED_FOR
from web_app.db.models import COPY, JobRow, utc_now
from web_app.jobs.derived import CleanCopies
from web_app.jobs.runner import Progress, WorkerTasks
from web_app.services import Services

HOME = "where we live"


@pytest.fixture(scope="module")
def decoders() -> Iterator[ForkServer | None]:
    found = start_fork_server()
    yield found
    if found is not None:
        found.close()


@pytest.fixture
def copies(parts: Services, decoders: ForkServer | None) -> CleanCopies:
    return CleanCopies(parts, lambda: decoders)


def report_of(path: Path) -> Report:
    content = path.read_bytes()
    return make_report(content, kind=sniff(content).kind)


@pytest.fixture
def served(client: FlaskClient, settings: Settings, copies: CleanCopies) -> Iterator[FlaskClient]:
    """A client with a worker behind the server that makes copies."""

    def analyse(path: Path, _: Progress) -> Report:
        report = report_of(path)
        copies.keep(path, report)
        return report

    with running_worker(settings, analyse, tasks=WorkerTasks(foreground={COPY: copies.handle})):
        yield client


def photo(text: str = HOME) -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, text
    out = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(out, "jpeg", exif=exif.tobytes())
    return out.getvalue()


def film(muxer: str = "mp4") -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format=muxer) as sink:
        sink.metadata["title"] = HOME
        stream = sink.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for level in range(5):
            grey = np.full((64, 96, 3), 40 * level, np.uint8)
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(grey)))
        sink.mux(stream.encode(None))
    return out.getvalue()


def place_of(client: FlaskClient, content: bytes, query: str = "?wait=1") -> str:
    return f"/api/detections/{upload(client, content, f'/api/detect{query}').get_json()['id']}/media"


def status(client: FlaskClient, place: str) -> int:
    with client.get(place) as answer:
        return answer.status_code


def names(parts: Services) -> list[str]:
    return sorted(path.suffix for path in stored_files(parts))


def test_a_picture_is_served_without_its_metadata(served: FlaskClient) -> None:
    place = place_of(served, photo())
    with served.get(place) as answer:
        whole = answer.data
    assert HOME.encode() in photo()
    assert HOME.encode() not in whole
    assert Image.open(io.BytesIO(whole)).getexif() == {0x0112: 6}
    assert (answer.mimetype, answer.content_length) == ("image/jpeg", len(whole))
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert answer.headers["Content-Disposition"].endswith(".jpg")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "private, no-cache"
    assert "sandbox" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(("muxer", "mime"), [("mp4", "video/mp4"), ("avi", "video/x-msvideo")])
def test_a_film_is_served_without_its_metadata_and_in_parts(served: FlaskClient, muxer: str, mime: str) -> None:
    place = place_of(served, film(muxer))
    with served.get(place) as answer:
        whole = answer.data
    assert answer.mimetype == mime
    assert HOME.encode() in film(muxer)
    assert HOME.encode() not in whole
    assert decoded(whole) == decoded(film(muxer))
    with served.get(place, headers={"Range": "bytes=5-20"}) as part:
        assert (part.status_code, part.data) == (206, whole[5:21])
        assert part.headers["Content-Range"] == f"bytes 5-20/{len(whole)}"
    with served.get(place, headers={"Range": f"bytes={len(whole)}-"}) as beyond:
        assert beyond.status_code == 416
    with served.get(place, headers={"If-None-Match": answer.headers["ETag"]}) as same:
        assert (same.status_code, same.data) == (304, b"")
    with served.head(place) as head:
        assert (head.status_code, head.content_length, head.data) == (200, len(whole), b"")


def test_before_its_copy_is_there_nothing_is_served(
    client: FlaskClient, settings: Settings, copies: CleanCopies
) -> None:
    place = place_of(client, photo(), "?wait=0")
    answer = client.get(place)
    assert (answer.status_code, answer.get_json()["code"]) == (503, "unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    with running_worker(settings, lambda path, _: report_of(path), tasks=WorkerTasks(foreground={COPY: copies.handle})):
        wait_until(lambda: status(client, place) == 200)


def test_files_from_before_there_were_copies_get_theirs_when_asked_for(served: FlaskClient, parts: Services) -> None:
    places = [place_of(served, content) for content in (photo(), film())]
    for copy in parts.store.derived():
        copy.unlink()
    for place in places:
        assert status(served, place) == 503
        wait_until(lambda place=place: status(served, place) == 200)
        with served.get(place) as answer:
            assert HOME.encode() not in answer.data
    assert len(parts.store.derived()) == 2


def test_a_file_whose_copy_fails_is_kept_back(served: FlaskClient, parts: Services) -> None:
    place = place_of(served, media_bytes("jpeg", "no_face"))
    answer = served.get(place)
    assert (answer.status_code, answer.get_json()["code"]) == (404, "not_found")
    assert "damaged" in answer.get_json()["detail"]
    assert names(parts) == ["", ".clean"]


def test_a_film_that_ended_early_has_no_copy(
    settings: Settings, client: FlaskClient, copies: CleanCopies, parts: Services
) -> None:
    def analyse(path: Path, _: Progress) -> Report:
        report = dataclasses.replace(report_of(path), notices=(Notice("truncated", "The file is damaged."),))
        copies.keep(path, report)
        return report

    with running_worker(settings, analyse, tasks=WorkerTasks(foreground={COPY: copies.handle})):
        place = place_of(client, film())
        assert status(client, place) == 404
        parts.store.derived()[0].unlink()
        assert status(client, place) == 503
        wait_until(lambda: status(client, place) == 404)


def test_what_is_not_to_be_kept_has_no_copy(served: FlaskClient, parts: Services, copies: CleanCopies) -> None:
    made: list[Path] = []
    keep = copies.keep
    copies.keep = lambda path, report: (keep(path, report), made.extend(parts.store.derived()))  # type: ignore[method-assign, assignment, return-value, func-returns-value]
    assert upload(served, photo(), "/api/detect?keep=0").status_code == 200
    assert (made, names(parts)) == ([], [])


def test_deleting_deletes_the_copy(served: FlaskClient, parts: Services) -> None:
    place = place_of(served, film())
    assert names(parts) == ["", ".clean"]
    assert served.delete(place.removesuffix("/media")).status_code == 204
    assert names(parts) == []


def test_a_file_deleted_meanwhile_leaves_no_copy(tmp_path: Path, copies: CleanCopies) -> None:
    copies._make(tmp_path / "gone", damaged=False)
    assert [path for path in tmp_path.iterdir() if path.name.startswith("gone")] == []


def test_a_copy_that_finds_no_room_is_told_and_tried_again_later(
    client: FlaskClient, settings: Settings, copies: CleanCopies, parts: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_of(client, photo(), "?wait=0")

    def tries() -> list[tuple[int, str]]:
        with parts.database.read() as session:
            return [(job.id, job.state) for job in session.scalars(sa.select(JobRow).where(JobRow.task == COPY))]

    monkeypatch.setattr(copies._store, "has_room", lambda _: False)
    with running_worker(settings, lambda path, _: report_of(path), tasks=WorkerTasks(foreground={COPY: copies.handle})):
        wait_until(lambda: status(client, place) == 507)
        failed = tries()
        assert [state for _, state in failed] == ["failed"]
        assert client.get(place).get_json()["code"] == "storage_full"
        assert tries() == failed, "asking did not try again"
        monkeypatch.undo()
        with parts.database.write() as session:
            session.execute(sa.update(JobRow).where(JobRow.task == COPY).values(finished_at=utc_now() - FAILED_FOR))
        wait_until(lambda: status(client, place) == 200)


@pytest.mark.parametrize("step", ["fsync", "room"])
def test_a_disk_that_refuses_costs_the_copy_until_it_has_room(
    client: FlaskClient,
    settings: Settings,
    copies: CleanCopies,
    parts: Services,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    place = place_of(client, photo(), "?wait=0")
    path = stored_files(parts)[0]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if step == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        usage = type("Usage", (), {"free": 200_000_000})
        monkeypatch.setattr("web_app.storage.files.shutil.disk_usage", lambda _: usage)
    assert not copies._make(path, damaged=False)
    assert names(parts) == [""]
    assert status(client, place) == 503
    monkeypatch.undo()
    assert copies._make(path, damaged=False)
    assert status(client, place) == 200
