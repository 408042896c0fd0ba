"""The queue: claims, leases, attempts, cancelling, and that a worker which lost a job changes nothing any more."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from tests.web_app.helpers import job_state, make_report, media_bytes, upload, wait_until
from utils.config import Settings
from utils.errors import MediaCorruptError, QueueFullError
from utils.types import MediaKind
from web_app.db.models import DetectionRow, JobRow, JobState, MediaRow, utc_now
from web_app.jobs.detections import delete_detection
from web_app.jobs.queue import Claim, JobQueue
from web_app.services import Services


@pytest.fixture
def settings(both_databases: Settings) -> Settings:
    """The queue keeps its word on either database."""
    return both_databases


def queue_one(client: FlaskClient, order: str = "fake") -> str:
    return str(upload(client, media_bytes("mp4", order)).get_json()["id"])


def row(parts: Services, public_id: str) -> JobRow:
    with parts.database.read() as session:
        return session.scalars(sa.select(JobRow).where(JobRow.public_id == public_id)).one()


def claim(parts: Services, worker_id: str = "w1") -> Claim:
    found = parts.queue.claim(worker_id)
    assert found is not None
    return found


def renewed(parts: Services, *claims: Claim) -> bool:
    """Whether the leases of all are prolonged."""
    with parts.database.write() as session:
        return not parts.queue.renew(session, claims)


def end_lease(parts: Services) -> None:
    with parts.database.write() as session:
        session.execute(sa.update(JobRow).values(lease_until=utc_now() - dt.timedelta(seconds=1)))


def test_the_oldest_job_is_claimed_first(client: FlaskClient, parts: Services) -> None:
    ids = [queue_one(client, order) for order in ("fake", "real", "inconclusive")]
    assert [claim(parts).public_id for _ in ids] == ids
    assert parts.queue.claim("w1") is None


def test_a_claim_counts_and_leases(client: FlaskClient, parts: Services) -> None:
    public_id = queue_one(client)
    before = utc_now()
    claimed = claim(parts)
    after = utc_now()
    found = row(parts, public_id)
    assert (claimed.attempt, found.attempts, found.state, found.worker_id) == (1, 1, "running", "w1")
    assert found.lease_until is not None
    assert before <= found.lease_until - dt.timedelta(seconds=parts.settings.jobs.lease_s) <= after
    assert parts.store.path(claimed.stored_name).read_bytes() == media_bytes("mp4")


@pytest.mark.parametrize("other", ["w1", "w2"])  # a worker cannot use its own older claim either
def test_a_job_is_taken_over_when_its_lease_ends(client: FlaskClient, parts: Services, other: str) -> None:
    queue_one(client)
    first = claim(parts)
    assert parts.queue.claim("w2") is None
    end_lease(parts)
    second = claim(parts, other)
    assert (second.job_id, second.attempt) == (first.job_id, 2)
    assert not renewed(parts, first)
    assert parts.queue.report_progress(first, "experts", 0.5) is False
    assert parts.queue.finish(first, make_report()) is False
    assert parts.queue.fail(first, MediaCorruptError()) is False
    assert parts.queue.give_back(first) is False
    assert parts.queue.finish(second, make_report()) is True


def test_a_renewed_lease_is_kept(client: FlaskClient, parts: Services) -> None:
    queue_one(client)
    claimed = claim(parts)
    end_lease(parts)
    assert renewed(parts, claimed)
    assert parts.queue.claim("w2") is None


def test_a_job_is_given_up_after_its_attempts(client: FlaskClient, parts: Services) -> None:
    public_id = queue_one(client)
    for attempt in (1, 2, 3):
        assert claim(parts).attempt == attempt
        end_lease(parts)
    assert parts.queue.claim("w1") is None
    job = client.get(f"/api/jobs/{public_id}").get_json()
    assert (job["state"], job["error"]["code"], job["attempts"]) == ("failed", "worker_lost", 3)


def test_a_job_given_back_costs_no_attempt(client: FlaskClient, parts: Services) -> None:
    public_id = queue_one(client)
    assert parts.queue.give_back(claim(parts))
    assert row(parts, public_id).state == JobState.QUEUED
    assert claim(parts, "w2").attempt == 1


def test_the_jobs_of_a_dead_worker_are_released(client: FlaskClient, parts: Services) -> None:
    for order in ("fake", "real"):
        queue_one(client, order)
    dead, other = claim(parts, "dead"), claim(parts, "other")
    assert parts.queue.release_lost("dead") == 1
    assert claim(parts, "next").job_id == dead.job_id
    assert renewed(parts, other)
    assert renewed(parts, dead, other) is False


def test_one_look_is_for_all_who_wait(client: FlaskClient, parts: Services) -> None:
    ids = [queue_one(client, order) for order in ("fake", "real", "inconclusive")]
    looks: list[int] = []
    sa.event.listen(parts.database.engine, "before_cursor_execute", lambda *given: looks.append(len(given[3])))
    with ThreadPoolExecutor(3) as pool:
        first, second, _ = [pool.submit(parts.queue.wait_for_end, each, 90.0, parts.stopping) for each in ids]
        wait_until(lambda: 5 in looks)  # three ids and the two states of what has not ended
        assert parts.queue.cancel(ids[0])
        first.result(60.0)
        assert not second.done()
        parts.stopping.set()
        second.result(60.0)


@pytest.mark.parametrize("running", [False, True])
def test_a_cancelled_job_ends(client: FlaskClient, parts: Services, running: bool) -> None:
    public_id = queue_one(client)
    claimed = claim(parts) if running else None
    assert parts.queue.cancel(public_id)
    assert not parts.queue.cancel(public_id)
    assert job_state(client, public_id) == "cancelled"
    assert claimed is None or parts.queue.finish(claimed, make_report()) is False
    assert parts.queue.claim("w2") is None


def test_jobs_ahead_are_counted(client: FlaskClient, parts: Services) -> None:
    ids = [queue_one(client, order) for order in ("fake", "real", "inconclusive")]
    assert [client.get(f"/api/jobs/{i}").get_json()["position"] for i in ids] == [0, 1, 2]
    claim(parts)
    assert [client.get(f"/api/jobs/{i}").get_json()["position"] for i in ids] == [None, 0, 1]


def test_room_returns_when_a_job_is_claimed(client: FlaskClient, parts: Services) -> None:
    queue_one(client)
    narrow = JobQueue(parts.database, dataclasses.replace(parts.settings.jobs, max_waiting=1))
    with parts.database.read() as session, pytest.raises(QueueFullError):
        narrow.require_room(session)
    claim(parts)
    with parts.database.read() as session:
        narrow.require_room(session)


def test_many_workers_never_share_a_job(client: FlaskClient, parts: Services) -> None:
    ids = {queue_one(client, f"fake {n}") for n in range(30)}
    taken: list[str] = []

    def work(name: str) -> None:
        while (found := parts.queue.claim(name)) is not None:
            taken.append(found.public_id)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, [f"w{n}" for n in range(6)]))
    assert sorted(taken) == sorted(ids)


def test_workers_that_find_sound_alone_in_one_file_do_not_lock_each_other_out(
    client: FlaskClient, parts: Services
) -> None:
    ids = [queue_one(client, order) for order in ("fake", "real")]
    with parts.database.write() as session:
        session.execute(sa.update(DetectionRow).values(media_id=session.scalar(sa.select(MediaRow.id).limit(1))))
    claims = [claim(parts, worker) for worker in ("w1", "w2")]
    both = threading.Barrier(2)

    @sa.event.listens_for(parts.database.engine, "after_cursor_execute")
    def wait(_: object, __: object, statement: str, *___: object) -> None:
        if statement.startswith("UPDATE detections SET report"):
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait(1)

    with ThreadPoolExecutor() as pool:
        reports = [make_report(kind=MediaKind.AUDIO) for _ in claims]
        assert list(pool.map(parts.queue.finish, claims, reports)) == [True, True]
    assert [job_state(client, each) for each in ids] == ["done", "done"]
    with parts.database.read() as session:
        assert session.scalars(sa.select(DetectionRow.media_kind)).all() == ["audio", "audio"]


def test_deleting_and_finishing_analyses_of_one_file_of_sound_do_not_lock_each_other_out(
    client: FlaskClient, parts: Services
) -> None:
    def finish(claim: Claim) -> bool:
        return parts.queue.finish(claim, make_report(kind=MediaKind.AUDIO))

    def delete(claim: Claim) -> bool:
        return delete_detection(parts.database, parts.store, claim.public_id)

    for turn in range(10):
        for number in range(6):
            queue_one(client, f"fake {turn} {number}")
        with parts.database.write() as session:
            session.execute(sa.update(DetectionRow).values(media_id=session.scalar(sa.select(MediaRow.id).limit(1))))
        claims = [claim(parts, f"w{number}") for number in range(6)]
        with ThreadPoolExecutor(6) as pool:
            both = pool.submit(delete, claims[0])
            done = [pool.submit((finish, delete)[number % 2], each) for number, each in enumerate(claims)]
        assert both.result()
        assert [each.result() for each in done[1:]] == [True] * 5  # whether the first one was finished is open
