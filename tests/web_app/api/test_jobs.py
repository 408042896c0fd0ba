"""Following and cancelling jobs over HTTP."""

from __future__ import annotations

import json
import time
from typing import Any

from flask.testing import FlaskClient

from tests.web_app.helpers import media_bytes, upload, wait_until
from web_app.api import detections as jobs
from web_app.api.detections import Job
from web_app.db.models import JobRow, JobState
from web_app.services import Services


def queue_one(client: FlaskClient, order: str = "fake") -> str:
    return str(upload(client, media_bytes("mp4", order)).get_json()["id"])


def events(client: FlaskClient, public_id: str) -> list[dict[str, Any]]:
    answer = client.get(f"/api/jobs/{public_id}/events")
    assert answer.mimetype == "text/event-stream"
    blocks = [block for block in answer.get_data(as_text=True).split("\n\n") if block.startswith("data: ")]
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


def test_a_waiting_job_is_described(client: FlaskClient) -> None:
    public_id = queue_one(client)
    job = client.get(f"/api/jobs/{public_id}").get_json()
    Job.model_validate(job)
    assert (job["id"], job["state"], job["position"], job["result"], job["error"]) == (
        public_id, "queued", 0, None, None,
    )  # fmt: skip


def test_a_finished_job_carries_its_result(served: FlaskClient) -> None:
    public_id = upload(served, media_bytes()).get_json()["id"]
    job = served.get(f"/api/jobs/{public_id}").get_json()
    Job.model_validate(job)
    assert (job["state"], job["fraction"], job["result"]["prediction"]) == ("done", 1.0, "fake")
    assert job["started"] <= job["finished"]


def test_a_failed_job_carries_its_problem(served: FlaskClient) -> None:
    public_id = queue_one(served, "corrupt")
    job = wait_until(lambda: (j := served.get(f"/api/jobs/{public_id}").get_json())["state"] == "failed" and j)
    Job.model_validate(job)
    assert (job["error"]["code"], job["error"]["status"]) == ("media_corrupt", 422)
    assert job["error"]["detail"] == "Nothing could be decoded."


def test_events_follow_a_job_to_its_end(served: FlaskClient) -> None:
    seen = events(served, queue_one(served, "sleep 0.8"))
    assert len(seen) >= 2
    for job in seen:
        Job.model_validate(job)
    assert [job["state"] for job in seen][-1] == "done"
    assert seen[-1]["result"]["prediction"] == "fake"
    assert any(job["stage"] == "experts" for job in seen)


def test_events_of_a_finished_job_are_one(served: FlaskClient) -> None:
    public_id = upload(served, media_bytes()).get_json()["id"]
    assert [job["state"] for job in events(served, public_id)] == ["done"]


def test_a_silent_stream_has_heart_beats(client: FlaskClient, parts: Services, monkeypatch: Any) -> None:
    monkeypatch.setattr(jobs, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(jobs, "LONGEST_STREAM_S", 1.0)
    text = client.get(f"/api/jobs/{queue_one(client)}/events").get_data(as_text=True)
    assert text.startswith("retry: ")
    assert ": still here\n\n" in text


def test_a_stream_beyond_the_slots_is_one_event(client: FlaskClient, parts: Services, monkeypatch: Any) -> None:
    monkeypatch.setattr(jobs, "LONGEST_STREAM_S", 30.0)
    public_id = queue_one(client)
    while parts.slots.acquire(blocking=False):
        pass
    started = time.monotonic()
    assert [job["state"] for job in events(client, public_id)] == ["queued"]
    assert time.monotonic() - started < 30.0


def test_streams_give_their_slots_back(client: FlaskClient, parts: Services, monkeypatch: Any) -> None:
    monkeypatch.setattr(jobs, "LONGEST_STREAM_S", 0.3)
    public_id = queue_one(client)
    before = parts.slots._value
    events(client, public_id)
    assert parts.slots._value == before


def test_streams_end_with_the_server(client: FlaskClient, parts: Services, monkeypatch: Any) -> None:
    monkeypatch.setattr(jobs, "LONGEST_STREAM_S", 30.0)
    public_id = queue_one(client)
    parts.stopping.set()
    started = time.monotonic()
    events(client, public_id)
    assert time.monotonic() - started < 30.0


def test_a_waiting_job_is_cancelled_once(client: FlaskClient) -> None:
    public_id = queue_one(client)
    answer = client.delete(f"/api/jobs/{public_id}")
    assert (answer.status_code, answer.get_json()["state"]) == (200, "cancelled")
    Job.model_validate(answer.get_json())
    again = client.delete(f"/api/jobs/{public_id}")
    assert (again.status_code, again.get_json()["code"], again.get_json()["state"]) == (409, "conflict", "cancelled")


def test_a_training_does_not_say_who_asked_for_it(client: FlaskClient, parts: Services) -> None:
    job = JobRow(
        public_id="a" * 32, task="train", state=JobState.DONE, payload={"asked_by": "b" * 32},
        result={"promoted": False, "asked_by": "b" * 32},
    )  # fmt: skip
    with parts.database.write() as session:
        session.add(job)
    answer = client.get(f"/api/rl/retrain/{'a' * 32}")
    assert (answer.status_code, answer.get_json()["result"]) == (200, {"promoted": False})
    assert "b" * 32 not in answer.text
