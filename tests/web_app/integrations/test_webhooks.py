"""Webhooks: registration, messages for every ended analysis, signatures, repeated attempts, giving up."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import hmac
import http.server
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from tests.web_app.helpers import make_settings, media_bytes, running_worker, upload, wait_until
from tests.web_app.integrations.test_http_client import LOCAL, answer, by_table, serving
from utils.config import ApiSettings, Settings
from web_app.api.webhooks import Deliveries, NewWebhook, Webhooks
from web_app.db.models import DeliveryRow, utc_now
from web_app.integrations import webhooks
from web_app.integrations.http_client import Rules
from web_app.services import EXTENSION, Services

RULES = Rules(LOCAL, by_table)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return dataclasses.replace(make_settings(tmp_path), api=ApiSettings(webhooks="on"))


@pytest.fixture
def app(make_app: Callable[..., Flask], settings: Settings) -> Flask:
    app = make_app(settings)
    app.extensions[EXTENSION] = dataclasses.replace(app.extensions[EXTENSION], outbound=RULES)
    return app


def register(client: FlaskClient, place: str) -> dict[str, Any]:
    found = client.post("/api/webhooks", json={"url": f"http://{place}/hook"})
    assert found.status_code == 201, found.get_json()
    NewWebhook.model_validate(found.get_json())
    return dict(found.get_json())


def deliveries(client: FlaskClient, hook: dict[str, Any]) -> list[dict[str, Any]]:
    found = client.get(f"/api/webhooks/{hook['id']}/deliveries").get_json()
    Deliveries.model_validate(found)
    return list(found["items"])


def send_all(parts: Services, now: dt.datetime | None = None) -> int:
    """Collect and try what is due; how many attempts there were."""
    webhooks.collect(parts.database, now or utc_now())
    attempts = 0
    while webhooks.deliver_one(parts.database, RULES, now or utc_now()):
        attempts += 1
    return attempts


class Receiver:
    """Keeps what was posted, and answers with the statuses in turn, the last one for ever."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.messages: list[tuple[dict[str, str], bytes]] = []

    def __call__(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        self.messages.append((dict(handler.headers.items()), body))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        answer(b"", status, **({"Location": "/elsewhere"} if status == 302 else {}))(handler)


def test_they_are_off_by_default(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    client = make_app(make_settings(tmp_path / "off")).test_client()
    found = client.post("/api/webhooks", json={"url": "http://example.org/"})
    assert (found.status_code, found.get_json()["code"]) == (501, "not_available")


def test_ended_analyses_are_told_with_a_signature(client: FlaskClient, parts: Services, settings: Settings) -> None:
    receiver = Receiver(204)
    with serving(receiver) as place:
        hook = register(client, place)
        with running_worker(settings):
            files = (media_bytes("mp4", "fake alone"), media_bytes(order="corrupt"))
            ids = [upload(client, each, "/api/detect?wait=1").get_json()["id"] for each in files]
        assert send_all(parts) == 2
        assert send_all(parts) == 0
    for headers, body in receiver.messages:
        named = {name.lower(): value for name, value in headers.items()}
        signed = f"{named['webhook-id']}.{named['webhook-timestamp']}.".encode() + body
        digest = hmac.new(base64.b64decode(hook["secret"].removeprefix("whsec_")), signed, "sha256").digest()
        assert named["webhook-signature"] == "v1," + base64.b64encode(digest).decode()
        assert abs(time.time() - int(named["webhook-timestamp"])) < 60
    told = [json.loads(body) for _, body in receiver.messages]
    assert [(each["type"], each["data"]["id"]) for each in told] == [
        ("analysis.done", ids[0]), ("analysis.failed", ids[1]),
    ]  # fmt: skip
    assert told[0]["data"]["speech_version"] == "s-test"
    assert (told[0]["data"]["prediction"], told[1]["data"]["error"]) == ("fake", "media_corrupt")
    assert [each["state"] for each in deliveries(client, hook)] == ["delivered", "delivered"]


def test_a_deleted_analysis_leaves_no_name_in_its_messages(client: FlaskClient, parts: Services) -> None:
    with serving(Receiver(204)) as place:
        register(client, place)
        public_id = upload(client, media_bytes("mp4"), name="my face.mp4").get_json()["id"]
        client.delete(f"/api/jobs/{public_id}")
        send_all(parts)

        def payload() -> dict[str, Any]:
            with parts.database.read() as session:
                return dict(session.scalars(sa.select(DeliveryRow.payload)).one())

        before = payload()
        assert before["data"]["name"] == "my face.mp4"
        client.delete(f"/api/detections/{public_id}")
        assert payload() == {**before, "data": {**before["data"], "name": None, "sha256": None}}


def test_a_cancelled_analysis_is_told_and_what_was_before_is_not(client: FlaskClient, parts: Services) -> None:
    before = upload(client, media_bytes("mp4", "real")).get_json()["id"]
    client.delete(f"/api/jobs/{before}")
    receiver = Receiver(200)
    with serving(receiver) as place:
        register(client, place)
        public_id = upload(client, media_bytes("mp4")).get_json()["id"]
        client.delete(f"/api/jobs/{public_id}")
        send_all(parts)
    assert [json.loads(body)["data"]["id"] for _, body in receiver.messages] == [public_id]


def test_a_failing_receiver_is_tried_later_and_again(client: FlaskClient, parts: Services) -> None:
    receiver = Receiver(500, 302, 200)
    now = utc_now()
    with serving(receiver) as place:
        hook = register(client, place)
        client.delete(f"/api/jobs/{upload(client, media_bytes('mp4')).get_json()['id']}")
        assert send_all(parts) == 1
        (first,) = deliveries(client, hook)
        assert (first["state"], first["status"], first["attempts"]) == ("pending", 500, 1)
        assert send_all(parts) == 0
        assert send_all(parts, now + dt.timedelta(seconds=60)) == 1
        assert deliveries(client, hook)[0]["status"] == 302
        assert send_all(parts, now + dt.timedelta(seconds=1000)) == 1
    assert deliveries(client, hook)[0]["state"] == "delivered"
    ids = {headers["webhook-id"] for headers, _ in receiver.messages}
    assert (len(receiver.messages), len(ids)) == (3, 1)


def test_a_receiver_that_is_gone_is_given_up_at_once(client: FlaskClient, parts: Services) -> None:
    with serving(Receiver(410)) as place:
        hook = register(client, place)
        client.delete(f"/api/jobs/{upload(client, media_bytes('mp4')).get_json()['id']}")
        assert send_all(parts) == 1
    (only,) = deliveries(client, hook)
    assert (only["state"], only["status"], only["attempts"]) == ("given_up", 410, 1)


def test_nobody_there_is_given_up_in_the_end(client: FlaskClient, parts: Services) -> None:
    with serving(Receiver(200)) as place:
        hook = register(client, place)
    client.delete(f"/api/jobs/{upload(client, media_bytes('mp4')).get_json()['id']}")
    now = utc_now()
    for attempt in range(len(webhooks.BACKOFF_S) + 1):
        assert send_all(parts, now + dt.timedelta(days=attempt)) == 1
    (last,) = deliveries(client, hook)
    assert (last["state"], last["attempts"], last["status"]) == ("given_up", 8, None)
    assert last["error"]
    assert send_all(parts, now + dt.timedelta(days=20)) == 0


def test_a_worker_that_dies_while_it_sends_loses_nothing(client: FlaskClient, parts: Services) -> None:
    receiver = Receiver(200)
    with serving(receiver) as place:
        register(client, place)
        client.delete(f"/api/jobs/{upload(client, media_bytes('mp4')).get_json()['id']}")
        now = utc_now()
        webhooks.collect(parts.database, now)
        assert webhooks.claim_message(parts.database, now) is not None
        assert webhooks.claim_message(parts.database, now) is None
        assert send_all(parts, now + dt.timedelta(seconds=webhooks.CLAIM_S + 1)) == 1
    assert len(receiver.messages) == 1


def test_an_address_that_moves_inside_is_refused_later_too(client: FlaskClient, parts: Services) -> None:
    with serving(Receiver(200)) as place:
        hook = register(client, place)
        client.delete(f"/api/jobs/{upload(client, media_bytes('mp4')).get_json()['id']}")
        webhooks.collect(parts.database, utc_now())
        assert webhooks.deliver_one(parts.database, Rules((), by_table), utc_now())
    assert "public internet" in deliveries(client, hook)[0]["error"]


def test_private_addresses_cannot_be_registered(client: FlaskClient) -> None:
    found = client.post("/api/webhooks", json={"url": "http://inside.test/hook"})
    assert (found.status_code, found.get_json()["code"]) == (422, "address_refused")


def test_a_webhook_is_listed_without_its_secret_and_can_be_removed(client: FlaskClient, parts: Services) -> None:
    with serving(Receiver(200)) as place:
        hook = register(client, place)
        client.delete(f"/api/jobs/{upload(client, media_bytes('mp4')).get_json()['id']}")
        webhooks.collect(parts.database, utc_now())
    listed = client.get("/api/webhooks").get_json()
    Webhooks.model_validate(listed)
    assert [each["id"] for each in listed["items"]] == [hook["id"]]
    assert hook["secret"] not in json.dumps(listed)
    assert client.delete(f"/api/webhooks/{hook['id']}").status_code == 204
    assert client.delete(f"/api/webhooks/{hook['id']}").status_code == 404
    with parts.database.read() as session:
        assert session.scalars(sa.select(DeliveryRow)).all() == []


def test_a_caller_has_ten_at_most(client: FlaskClient) -> None:
    with serving(Receiver(200)) as place:
        for _ in range(10):
            register(client, place)
        assert client.post("/api/webhooks", json={"url": f"http://{place}/"}).status_code == 409


def test_the_thread_of_the_worker_sends_by_itself(
    client: FlaskClient, parts: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "POLL_S", 0.05)
    monkeypatch.setattr(Rules, "of", lambda settings: RULES)
    receiver = Receiver(200)
    with serving(receiver) as place, webhooks.sending(parts):
        register(client, place)
        client.delete(f"/api/jobs/{upload(client, media_bytes('mp4')).get_json()['id']}")
        wait_until(lambda: receiver.messages)
