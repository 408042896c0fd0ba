"""Requests that miss the API by a little: each is taken, or answered with what is right."""

from __future__ import annotations

import gzip

import pytest
from flask.testing import FlaskClient

from tests.web_app.helpers import media_bytes, multipart, stored_files, upload
from web_app.services import Services

FORM = "multipart/form-data; boundary=b"
LARGER_THAN_JSON = 200_000


def parts_of(*heads: tuple[str, bytes]) -> bytes:
    """A body of parts with these Content-Dispositions, after `form-data; `."""
    each = [f"--b\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + data for head, data in heads]
    return b"\r\n".join(each) + b"\r\n--b--\r\n"


@pytest.mark.parametrize("size", [300, LARGER_THAN_JSON])
@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/detekt", 404, "not_found"),
        ("/api/detect/", 404, "not_found"),
        ("/upload", 404, "not_found"),
        ("/", 405, "method_not_allowed"),
        ("/api/history", 405, "method_not_allowed"),
    ],
)
def test_a_wrong_address_names_the_right_one(client: FlaskClient, path: str, status: int, code: str, size: int) -> None:
    sent = {"data": multipart(media_bytes(size=size)), "content_type": FORM, "headers": {"Accept": "*/*"}}
    answer = client.post("/placeholder", **sent, environ_overrides={"PATH_INFO": path})
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")
    problem = answer.get_json()
    assert problem["code"] == code
    assert "/api/detect" in problem["remedy"]


def test_a_wrong_request_without_a_file_is_told_what_is_allowed(client: FlaskClient) -> None:
    nothing, wrong = client.get("/api/nothing").get_json(), client.put("/api/history").get_json()
    assert (nothing["detail"], nothing["remedy"]) == (
        "There is no such route.", "/api/docs lists every route with its methods.",
    )  # fmt: skip
    assert wrong["detail"] == "PUT is not allowed here, but DELETE and GET."
    assert "/api/detect" not in wrong["remedy"]


def test_what_a_route_does_not_take_is_sent_elsewhere(client: FlaskClient) -> None:
    video = upload(client, media_bytes("mp4"), "/api/detect/image")
    assert (video.status_code, video.get_json()["remedy"]) == (415, "Send it to /api/detect/video or /api/detect.")
    empty = upload(client, b"", "/api/detect")
    assert (empty.status_code, empty.get_json()["detail"]) == (400, "The file has 0 bytes.")


def test_a_slash_too_many_does_no_harm(client: FlaskClient) -> None:
    sent = {"data": multipart(media_bytes(size=LARGER_THAN_JSON)), "content_type": FORM}
    answer = client.post("/placeholder?wait=0", **sent, environ_overrides={"PATH_INFO": "//api/detect"})
    assert answer.status_code == 202


@pytest.mark.parametrize("name", ["image", "video"])
def test_a_part_named_by_its_kind_is_taken(client: FlaskClient, name: str) -> None:
    body = parts_of((f'name="{name}"; filename="a.png"', media_bytes()))
    answer = client.post("/api/detect?wait=0", data=body, content_type=FORM)
    assert answer.status_code == 202


@pytest.mark.parametrize(
    ("head", "named"), [('name="photo"; filename="a.png"', "`photo`"), ('name="file"', "`file` (text)")]
)
def test_what_was_sent_instead_of_a_file_is_named(client: FlaskClient, head: str, named: str) -> None:
    answer = client.post("/api/detect", data=parts_of((head, media_bytes())), content_type=FORM)
    assert answer.status_code == 400
    assert named in answer.get_json()["detail"]


def test_two_files_are_sent_to_the_batch(client: FlaskClient, parts: Services) -> None:
    one = ('name="file"; filename="a.png"', media_bytes())
    answer = client.post("/api/detect", data=parts_of(one, one), content_type=FORM)
    assert answer.status_code == 400
    assert "/api/batch" in answer.get_json()["detail"]
    assert stored_files(parts) == []


def test_a_file_name_that_is_not_utf8_is_named(client: FlaskClient) -> None:
    body = multipart(media_bytes(), "Grüße.png").replace("Grüße".encode(), "Grüße".encode("latin-1"))
    answer = client.post("/api/detect", data=body, content_type=FORM)
    problem = answer.get_json()
    assert answer.status_code == 400
    assert "Grüße.png" in problem["detail"]
    assert "UTF-8" in problem["detail"]


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "identity, gzip"])
@pytest.mark.parametrize(
    ("path", "body", "content_type"),
    [
        ("/api/detect", multipart(media_bytes()), FORM),
        ("/api/batch", multipart(media_bytes()), FORM),
        ("/api/feedback", b'{"id": "x", "feedback": "correct"}', "application/json"),
    ],
)
def test_a_coded_body_is_refused_by_name(
    client: FlaskClient, path: str, body: bytes, content_type: str, coding: str
) -> None:
    sent = {"data": gzip.compress(body), "content_type": content_type}
    answer = client.post(path, **sent, headers={"Content-Encoding": coding})
    problem = answer.get_json()
    assert (answer.status_code, problem["code"]) == (415, "content_encoding")
    assert "Content-Encoding" in problem["detail"]
    assert coding in problem["detail"]
    assert "Content-Encoding" in problem["remedy"]


def test_a_body_that_says_it_is_not_coded_is_taken(client: FlaskClient) -> None:
    answer = upload(client, media_bytes(), "/api/detect?wait=0", headers={"Content-Encoding": "identity"})
    assert answer.status_code == 202


def test_a_path_with_nul_reaches_no_view(client: FlaskClient) -> None:
    assert client.get("/api/jobs/a%00b").get_json()["detail"] != client.get("/api/jobs/a-b").get_json()["detail"]
