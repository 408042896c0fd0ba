"""Several files in one request: each accepted or refused by itself, followed as one."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.web_app.helpers import clean_up, make_settings, media_bytes, stored_files, wait_until
from utils.config import ApiSettings
from web_app.api.detect import Batch
from web_app.db.models import BatchRow, utc_now
from web_app.services import Services


def send(client: FlaskClient, *contents: bytes, **keywords: Any) -> TestResponse:
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="file"; filename="{number}.png"\r\n\r\n'.encode() + content
        for number, content in enumerate(contents)
    ]
    body = b"\r\n".join([*parts, b"--b--\r\n"])
    return client.post("/api/batch", data=body, content_type="multipart/form-data; boundary=b", **keywords)


def test_good_files_are_taken_beside_bad_ones(served: FlaskClient, parts: Services) -> None:
    answer = send(served, media_bytes(order="fake"), b"%PDF nothing", media_bytes("mp4", "corrupt"), b"", media_bytes())
    assert answer.status_code == 202
    batch = answer.get_json()
    Batch.model_validate(batch)
    assert [item["name"] for item in batch["items"]] == [f"{number}.png" for number in range(5)]
    assert [item["error"] and item["error"]["code"] for item in batch["items"]][1] == "unsupported_media"
    assert batch["items"][3]["error"]["code"] == "bad_request"
    assert batch["items"][0]["id"] == batch["items"][4]["id"]  # the same bytes

    def ended() -> dict[str, Any] | None:
        found = served.get(answer.headers["Location"]).get_json()
        return dict(found) if found["finished"] else None

    batch = wait_until(ended)
    Batch.model_validate(batch)
    assert batch["counts"] == {"done": 2, "failed": 1, "refused": 2}
    assert [item["prediction"] for item in batch["items"]] == ["fake", None, None, None, "fake"]
    assert batch["items"][2]["error"]["code"] == "media_corrupt"
    assert len(stored_files(parts)) == 2


def test_a_deleted_analysis_loses_its_name_and_the_last_one_takes_the_batch(
    client: FlaskClient, parts: Services
) -> None:
    batch = send(client, media_bytes("mp4", "real"), media_bytes("mp4", "fake"), b"%PDF nothing").get_json()
    first, second = (item["id"] for item in batch["items"][:2])
    for public_id in (first, second):
        client.delete(f"/api/jobs/{public_id}")
    client.delete(f"/api/detections/{first}")
    found = client.get(f"/api/batch/{batch['id']}").get_json()
    Batch.model_validate(found)
    assert [item["state"] for item in found["items"]] == ["deleted", "cancelled", "refused"]
    assert [item["name"] for item in found["items"]] == ["", "1.png", "2.png"]
    client.delete(f"/api/detections/{second}")
    assert client.get(f"/api/batch/{batch['id']}").status_code == 404
    with parts.database.read() as session:
        assert session.scalars(sa.select(BatchRow)).all() == []


def test_old_batches_go_with_the_retention_period(client: FlaskClient, parts: Services) -> None:
    refused, waiting = (send(client, content).get_json()["id"] for content in (b"%PDF nothing", media_bytes("mp4")))
    clean_up(parts, 7, utc_now() + dt.timedelta(days=6))
    assert client.get(f"/api/batch/{refused}").status_code == 200
    clean_up(parts, 7, utc_now() + dt.timedelta(days=8))
    assert [client.get(f"/api/batch/{each}").status_code for each in (refused, waiting)] == [404, 404]


def test_a_full_queue_refuses_the_rest(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    client = make_app(make_settings(tmp_path, max_waiting=1)).test_client()
    items = send(client, media_bytes(order="fake"), media_bytes(order="real")).get_json()["items"]
    assert [item["state"] for item in items] == ["queued", "refused"]
    assert items[1]["error"]["code"] == "queue_full"


@pytest.mark.parametrize("count", [0, 3])
def test_none_or_too_many_are_refused_whole(make_app: Callable[..., Flask], tmp_path: Path, count: int) -> None:
    app = make_app(dataclasses.replace(make_settings(tmp_path), api=ApiSettings(batch_files=2)))
    answer = send(app.test_client(), *(media_bytes() for _ in range(count)))
    assert (answer.status_code, answer.get_json()["code"]) == (400, "bad_request")
    assert stored_files(app.extensions["telltale"]) == []


def test_all_together_keep_the_limit_of_one_upload(client: FlaskClient, parts: Services) -> None:
    answer = send(client, *(media_bytes(size=600_000) for _ in range(2)))
    assert (answer.status_code, answer.get_json()["code"]) == (413, "media_too_large")
    assert stored_files(parts) == []


def test_a_body_that_is_cut_off_leaves_nothing(client: FlaskClient, parts: Services) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    body = head + media_bytes() + b"\r\n" + head + media_bytes()
    answer = client.post("/api/batch", data=body, content_type="multipart/form-data; boundary=b")
    assert (answer.status_code, answer.get_json()["code"]) == (400, "bad_request")
    assert stored_files(parts) == []


def test_an_unknown_batch_is_not_found(client: FlaskClient) -> None:
    assert client.get("/api/batch/nix").status_code == 404
