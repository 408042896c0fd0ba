"""The server on PostgreSQL: the tables, one way through everything, workers that claim side by side, a restart.

What holds of the queue on both databases stands in tests/web_app/jobs/test_queue.py.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from benchmarks.scale.rows import fill
from benchmarks.servers import Postgres, temporary
from tests.web_app.db import postgres
from tests.web_app.feedback.hand_in import ended_training, hand_in_worker, say, wait_for_state
from tests.web_app.helpers import make_settings, media_bytes, multipart, upload, wait_until
from utils.config import Settings
from web_app.auth.keys import create_key, find_key
from web_app.db import names
from web_app.db.migrations import migrate
from web_app.services import Services


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    made = make_settings(tmp_path, on_postgres=True)
    yield made
    postgres.drop_database(made.storage.database_url)


def test_one_way_through_everything(client: FlaskClient, settings: Settings, parts: Services) -> None:
    with hand_in_worker(settings):
        public_id, answer = say(client, "fake", "real")
        assert answer.status_code == 201
        wait_for_state(client, public_id, "accepted")
        where = client.post("/api/rl/retrain").headers["Location"]
        assert ended_training(client, where)["state"] == "done"
        assert upload(client, media_bytes(order="fake"), "/api/detect?wait=1").headers["Idempotency-Replayed"] == "true"
        body = multipart(media_bytes(order="real"))[:-7] + multipart(media_bytes("mp4", "no_face"), "clip.mp4")
        batch = client.post("/api/batch", data=body, content_type="multipart/form-data; boundary=b").get_json()
        wait_until(lambda: client.get(f"/api/batch/{batch['id']}").get_json()["finished"])
    for query, total in (("", 3), ("?text=CLIP", 1), ("?kind=image&prediction=real", 1), ("?since=2100-01-01", 0)):
        assert client.get(f"/api/history{query}").get_json()["total"] == total, query
    assert client.get("/api/history.csv").get_data(as_text=True).count("photo.png") == 2
    assert client.get("/api/rl/stats").get_json()["feedback"]["learned"] == 1
    assert client.get("/api/rl/review?state=all").get_json()["total"] == 1
    assert json.loads(client.get(f"/api/detections/{public_id}/report").data)["sha256"]
    assert find_key(parts.database, create_key(parts.database, "desk", ["analyse"])) is not None
    assert client.delete("/api/history").get_json()["deleted"] == 3
    assert client.get("/api/history").get_json()["total"] == 0


def test_a_nul_is_refused_where_it_cannot_be_stored(client: FlaskClient) -> None:
    for path in ("/api/jobs/%00", "/api/detections/a%00/seen", "/api/cases/%00", "/detections/%00", "/cases/%00"):
        assert client.get(path).status_code == 404, path
    answers = [
        client.get("/api/history?text=%00"), client.get("/api/history.csv?ids=a%00"),
        client.post("/api/cases", json={"title": "a\0", "notes": ""}),
        client.post("/api/feedback", json={"id": "a\0", "feedback": "correct"}),
    ]  # fmt: skip
    assert [(each.status_code, each.get_json()["code"]) for each in answers] == [(422, "invalid_field")] * 4
    assert answers[2].get_json()["errors"] == [{"field": "title", "message": "Input should hold no NUL"}]


def test_a_part_of_a_name_is_sought_in_the_index(client: FlaskClient, parts: Services) -> None:
    asked: list[tuple[str, Any]] = []

    @sa.event.listens_for(parts.database.engine, "before_cursor_execute")
    def note(_: object, __: object, statement: str, values: Any, *___: object) -> None:
        if "LIKE" in statement:
            asked.append((statement, values))

    fill(parts, 5_000)
    assert client.get("/api/history?text=photo-4242").get_json()["total"] == 1
    statement, values = asked[0]
    with parts.database.engine.connect() as connection:
        connection.exec_driver_sql("SET enable_seqscan = off")  # which is cheaper for so few rows
        assert names.INDEX in "".join(connection.exec_driver_sql(f"EXPLAIN {statement}", values).scalars())


def test_readers_and_writers_go_on_while_names_are_indexed_anew(parts: Services) -> None:
    engine = parts.database.engine
    fill(parts, 100)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP INDEX {names.INDEX}")
        connection.exec_driver_sql(f"CREATE INDEX {names.NOT_ASKED} ON detections (lower(display_name))")
    writers: list[Future[int]] = []
    pool = ThreadPoolExecutor(1)

    @sa.event.listens_for(engine, "after_cursor_execute")
    def built(_: object, __: object, statement: str, *___: object) -> None:
        if not statement.startswith("CREATE INDEX"):
            return
        connection = engine.connect()
        connection.exec_driver_sql("SET LOCAL lock_timeout = '5s'")
        assert connection.exec_driver_sql("SELECT count(*) FROM detections").scalar() == 100  # nobody is shut out

        def write() -> int:
            with connection:
                changed = connection.exec_driver_sql("UPDATE detections SET display_name = 'x.png'").rowcount
                connection.commit()
            return changed

        writers.append(pool.submit(write))
        with engine.connect() as looking:
            waiting = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'detections'::regclass")
            wait_until(lambda: looking.scalar(waiting) == 1)  # a writer that has read before

    migrate(parts.database)
    assert [each.result(60) for each in writers] == [100]
    pool.shutdown()
    there = {each["name"] for each in sa.inspect(engine).get_indexes("detections")}
    assert names.INDEX in there
    assert names.NOT_ASKED not in there


def test_a_server_that_is_away_is_told_and_found_again(tmp_path: Path, make_app: Callable[..., Flask]) -> None:
    with temporary(Postgres) as server:
        settings = make_settings(tmp_path)
        storage = dataclasses.replace(settings.storage, database_url=server.url)
        client = make_app(dataclasses.replace(settings, storage=storage)).test_client()
        assert upload(client, media_bytes("mp4")).status_code == 202
        server.stop()
        refused = upload(client, media_bytes("mp4", size=301))
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
        server.start()
        assert upload(client, media_bytes("mp4", size=301)).status_code == 202
        assert client.get("/api/history").get_json()["total"] == 2
