"""Files to analyse over HTTP, uploaded or fetched from an address: verdicts, jobs, waiting, and every refusal."""

from __future__ import annotations

import dataclasses
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.web_app.helpers import (
    job_state,
    make_settings,
    media_bytes,
    running_worker,
    stored_files,
    upload,
    wait_until,
)
from tests.web_app.integrations.test_http_client import LOCAL, answer, by_table, serving
from utils.config import ApiSettings
from web_app.api.detect import WAIT_IMAGE_S, Accepted
from web_app.api.schemas import Result
from web_app.integrations.http_client import Rules
from web_app.services import EXTENSION, Services


@pytest.mark.parametrize("route", ["/api/detect", "/api/detect/image"])
def test_an_image_is_answered_with_its_verdict(served: FlaskClient, route: str) -> None:
    answer = upload(served, media_bytes(order="fake"), route)
    assert answer.status_code == 200
    result = answer.get_json()
    Result.model_validate(result)
    assert result["prediction"] == "fake"
    assert result["fake_probability"] == pytest.approx(0.93)


@pytest.mark.parametrize("route", ["/api/detect", "/api/detect/video"])
def test_a_video_is_answered_with_a_job(served: FlaskClient, route: str) -> None:
    answer = upload(served, media_bytes("mp4"), route, name="clip.mp4")
    assert answer.status_code == 202
    accepted = answer.get_json()
    Accepted.model_validate(accepted)
    assert answer.headers["Location"] == accepted["links"]["job"] == f"/api/jobs/{accepted['id']}"
    wait_until(lambda: job_state(served, accepted["id"]) == "done")


@pytest.mark.parametrize(("query", "headers"), [("?wait=1", {}), ("", {"Prefer": "wait=20"})])
def test_a_client_may_wait_for_a_video(served: FlaskClient, query: str, headers: dict[str, str]) -> None:
    answer = upload(served, media_bytes("mp4", "real"), f"/api/detect/video{query}", headers=headers)
    assert answer.status_code == 200
    assert answer.get_json()["prediction"] == "real"


@pytest.mark.parametrize(("query", "headers"), [("?wait=0", {}), ("", {"Prefer": "respond-async"})])
def test_a_client_need_not_wait_for_an_image(served: FlaskClient, query: str, headers: dict[str, str]) -> None:
    assert upload(served, media_bytes(), f"/api/detect/image{query}", headers=headers).status_code == 202


def test_the_wait_for_an_image_ends(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web_app.api.detect.WAIT_IMAGE_S", 0.2)
    started = time.monotonic()
    assert upload(client, media_bytes()).status_code == 202
    assert 0.2 <= time.monotonic() - started < 30.0


def test_waiting_requests_leave_threads_to_others(client: FlaskClient, parts: Services) -> None:
    while parts.slots.acquire(blocking=False):
        pass
    started = time.monotonic()
    assert upload(client, media_bytes()).status_code == 202
    assert time.monotonic() - started < WAIT_IMAGE_S


@pytest.mark.parametrize(("route", "sent", "right"), [("image", "mp4", "video"), ("video", "png", "image")])
def test_the_other_kind_is_sent_to_its_route(
    client: FlaskClient, parts: Services, route: str, sent: str, right: str
) -> None:
    answer = upload(client, media_bytes(sent), f"/api/detect/{route}")
    problem = answer.get_json()
    assert (answer.status_code, problem["code"]) == (415, "unsupported_media")
    assert problem["route"] == f"/api/detect/{right}"
    assert problem["route"] in problem["remedy"]
    assert stored_files(parts) == []


def test_a_file_of_no_known_kind_is_refused(client: FlaskClient, parts: Services) -> None:
    answer = upload(client, b"%PDF-1.7 nothing to see", name="photo.jpg")
    assert (answer.status_code, answer.get_json()["code"]) == (415, "unsupported_media")
    assert stored_files(parts) == []


def test_a_file_above_the_limit_is_refused_before_it_is_read(client: FlaskClient, parts: Services) -> None:
    answer = upload(client, media_bytes(size=1_000_001))
    assert (answer.status_code, answer.get_json()["code"]) == (413, "media_too_large")
    assert answer.get_json()["limit_bytes"] == 1_000_000
    assert stored_files(parts) == []


FORM = {"CONTENT_TYPE": "multipart/form-data; boundary=b"}  # the client would draw another boundary


class EndlessBody(io.RawIOBase):
    """A multipart body that never ends and counts what was taken from it."""

    def __init__(self) -> None:
        self.head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + media_bytes()
        self.taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        chunk = self.head[: len(buffer)]
        self.head = self.head[len(chunk) :]
        chunk = chunk.ljust(len(buffer), b"\x00")
        buffer[:] = chunk
        self.taken += len(chunk)
        return len(chunk)


def test_a_stream_without_a_length_is_counted(client: FlaskClient, parts: Services) -> None:
    body = EndlessBody()
    answer = client.post(
        "/api/detect",
        headers={"Transfer-Encoding": "chunked"},
        environ_overrides={**FORM, "wsgi.input": io.BufferedReader(body), "wsgi.input_terminated": True},
    )
    assert answer.status_code == 413
    assert body.taken < 3_000_000
    assert stored_files(parts) == []


@pytest.mark.parametrize(
    ("head", "filling", "tail"),
    [
        (b'--b\r\nContent-Disposition: form-data; name="file"; filename="', b"a", b""),
        (b"--b\r\nX: 1", b"\r\n y", b""),
        (b"", b"before", b""),
        (b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n', b"", b"\r\n--b--\r\n"),
    ],
)
def test_what_stands_around_files_has_a_limit(
    client: FlaskClient, parts: Services, head: bytes, filling: bytes, tail: bytes
) -> None:
    body = head + filling * (900_000 // max(1, len(filling))) + (media_bytes() + tail + b"z" * 900_000 if tail else b"")
    source = io.BytesIO(body)
    answer = client.post(
        "/api/detect", environ_overrides={**FORM, "wsgi.input": source, "CONTENT_LENGTH": str(len(body))}
    )
    assert (answer.status_code, answer.get_json()["code"]) == (400, "bad_request")
    assert "500000 bytes around a file" in answer.get_json()["detail"]
    assert source.tell() < 700_000  # given up before its end
    assert stored_files(parts) == []


@pytest.mark.parametrize("declared", ["text/html", "video/mp4", "application/x-php", "image/jpeg; boundary=c"])
def test_the_declared_type_is_not_read(client: FlaskClient, declared: str) -> None:
    head = f'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: {declared}\r\n\r\n'
    for content, status in ((media_bytes(), 202), (b"%PDF-1.7 nothing to see", 415)):
        answer = client.post(
            "/api/detect/image",
            headers={"Prefer": "respond-async"},
            data=head.encode() + content + b"\r\n--b--\r\n",
            content_type=FORM["CONTENT_TYPE"],
        )
        assert answer.status_code == status
        if status == 202:
            assert client.get("/api/history").get_json()["items"][0]["format"] == "png"


def test_other_parts_are_ignored_and_leave_nothing(client: FlaskClient, parts: Services) -> None:
    data = {"file": (io.BytesIO(media_bytes()), "a.png"), "other": (io.BytesIO(b"%PDF nothing"), "b.pdf"), "field": "1"}
    assert client.post("/api/detect?wait=0", data=data).status_code == 202
    assert len(stored_files(parts)) == 1


def test_a_length_that_lies_is_noticed(client: FlaskClient, parts: Services) -> None:
    whole = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + media_bytes()
    answer = client.post(
        "/api/detect",
        environ_overrides={**FORM, "wsgi.input": io.BytesIO(whole), "CONTENT_LENGTH": str(len(whole) + 5000)},
    )
    assert (answer.status_code, answer.get_json()["code"]) == (400, "bad_request")
    assert stored_files(parts) == []


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{}", "application/json"),
        (b"", "multipart/form-data"),
        (b"no multipart at all", "multipart/form-data; boundary=b"),
        (b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--b--\r\n', "multipart/form-data; boundary=b"),
        (
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
        ),
        (
            b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n' * 50 + b"--b--\r\n",
            "multipart/form-data; boundary=b",
        ),
    ],
)
def test_bodies_of_another_form_are_refused(client: FlaskClient, body: bytes, content_type: str) -> None:
    answer = client.post("/api/detect", data=body, content_type=content_type)
    assert answer.status_code in (400, 413)
    assert answer.get_json()["code"] in ("bad_request", "media_too_large")


def test_the_full_queue_answers_429(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    client = make_app(make_settings(tmp_path, max_waiting=2)).test_client()
    for order in ("fake", "real"):
        assert upload(client, media_bytes("mp4", order)).status_code == 202
    answer = upload(client, media_bytes("mp4", "inconclusive"))
    assert (answer.status_code, answer.get_json()["code"]) == (429, "queue_full")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60


def test_a_failed_analysis_is_answered_with_its_code(served: FlaskClient) -> None:
    answer = upload(served, media_bytes(order="corrupt"))
    problem = answer.get_json()
    assert (answer.status_code, problem["code"]) == (422, "media_corrupt")
    assert job_state(served, problem["id"]) == "failed"


def test_an_unforeseen_error_is_internal_and_the_worker_lives_on(served: FlaskClient) -> None:
    answer = upload(served, media_bytes(order="crash"))
    assert (answer.status_code, answer.get_json()["code"]) == (500, "internal")
    assert "tests put here" not in answer.get_data(as_text=True)
    assert upload(served, media_bytes(order="real")).status_code == 200


def test_the_name_is_only_shown(served: FlaskClient, parts: Services) -> None:
    name = "../../etc/<b>pass\u202ewd\x07.png"
    public_id = upload(served, media_bytes(), name=name).get_json()["id"]
    assert served.get(f"/api/detections/{public_id}").get_json()["name"] == "<b>passwd.png"
    (path,) = stored_files(parts)
    assert path.parent.parent == parts.paths.uploads
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_ending_that_contradicts_the_content_is_only_noticed(served: FlaskClient) -> None:
    notices = upload(served, media_bytes(), name="photo.jpg").get_json()["notices"]
    assert [notice["code"] for notice in notices] == ["extension"]
    assert upload(served, media_bytes(), "/api/detect?again=1", name="photo.PNG").get_json()["notices"] == []


def test_workers_and_servers_may_be_two(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    one, two = make_settings(tmp_path / "one"), make_settings(tmp_path / "two")
    clients = [make_app(settings).test_client() for settings in (one, two)]
    with running_worker(one), running_worker(two):
        ids = [upload(client, media_bytes()).get_json()["id"] for client in clients]
    assert clients[0].get(f"/api/jobs/{ids[1]}").status_code == 404
    assert clients[1].get(f"/api/jobs/{ids[1]}").status_code == 200


@pytest.fixture
def fetching(make_app: Callable[..., Flask], tmp_path: Path) -> Iterator[FlaskClient]:
    """A client of a server that fetches, from this machine too, with a worker behind it."""
    settings = dataclasses.replace(make_settings(tmp_path), api=ApiSettings(url_input="on", url_timeout_s=5))
    app = make_app(settings)
    parts = app.extensions[EXTENSION]
    app.extensions[EXTENSION] = dataclasses.replace(parts, outbound=Rules(LOCAL, by_table))
    with running_worker(settings):
        yield app.test_client()


def test_it_is_off_by_default(client: FlaskClient) -> None:
    found = client.post("/api/detect/url", json={"url": "http://example.org/a.png"})
    assert (found.status_code, found.get_json()["code"]) == (501, "not_available")


def test_a_file_is_fetched_and_analysed(fetching: FlaskClient) -> None:
    with serving(answer(media_bytes(order="real"), Content_Type="text/html")) as place:
        found = fetching.post("/api/detect/url", json={"url": f"http://{place}/folder/my%20photo.png?size=large"})
    assert (found.status_code, found.get_json()["prediction"]) == (200, "real")
    shown = fetching.get(f"/api/detections/{found.get_json()['id']}").get_json()
    assert shown["name"] == "my photo.png"


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (answer(b"<html>no picture</html>", Content_Type="image/png"), "unsupported_media"),
        (answer(b""), "bad_request"),
        (answer(media_bytes(size=1_000_001)), "media_too_large"),
        (answer(b"gone", 404), "fetch_failed"),
        (answer(media_bytes(), Content_Encoding="gzip"), "fetch_failed"),
        (answer(b"", 302, Location="http://inside.test/a.png"), "address_refused"),
    ],
)
def test_what_is_no_file_of_ours_is_refused(fetching: FlaskClient, behaviour: object, code: str) -> None:
    with serving(behaviour) as place:  # type: ignore[arg-type]
        found = fetching.post("/api/detect/url", json={"url": f"http://{place}/a.png"})
    assert found.get_json()["code"] == code
    uploads = fetching.application.extensions[EXTENSION].paths.uploads
    assert [path for path in uploads.rglob("*") if path.is_file()] == []
