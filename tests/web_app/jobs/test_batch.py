"""Pictures that wait are analysed together; each job's end, lease, attempts and cancelling stay its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

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
from utils.errors import MediaCorruptError
from utils.types import Report
from web_app.db.models import DetectionRow, MediaRow
from web_app.jobs.detections import sweep_without_row
from web_app.jobs.runner import Progress, WorkerTasks
from web_app.services import Services

Works = Sequence[tuple[Path, Progress]]


def queue_pictures(client: FlaskClient, *orders: str) -> list[str]:
    uploads = [upload(client, media_bytes("png", order), "/api/detect?wait=0") for order in orders]
    return [str(answer.get_json()["id"]) for answer in uploads]


def one_by_one(works: Works) -> list[Report | Exception]:
    outcomes: list[Report | Exception] = []
    for path, progress in works:
        try:
            outcomes.append(fake_analyse(path, progress))
        except Exception as error:  # noqa: BLE001 - as the real one does
            outcomes.append(error)
    return outcomes


@contextmanager
def together(settings: Settings, analyse: Callable[[Works], list[Report | Exception]]) -> Iterator[list[int]]:
    """A worker whose analysis of several pictures is a test's own; yields how many it was given each time."""
    sizes: list[int] = []

    def counted(works: Works) -> list[Report | Exception]:
        sizes.append(len(works))
        return analyse(works)

    with running_worker(settings, tasks=WorkerTasks(together=counted)):
        yield sizes


def all_in(client: FlaskClient, ids: Sequence[str], state: str) -> Callable[[], bool]:
    return lambda: all(job_state(client, public_id) == state for public_id in ids)


def test_waiting_pictures_are_taken_together(client: FlaskClient, tmp_path: Path) -> None:
    ids = queue_pictures(client, *(f"fake {n}" for n in range(7)))
    with together(make_settings(tmp_path, batch=4), one_by_one) as sizes:
        wait_until(all_in(client, ids, "done"))
    assert sizes == [4, 3]
    for public_id in ids:
        assert client.get(f"/api/jobs/{public_id}").get_json()["attempts"] == 1


def test_videos_come_alone_and_in_their_turn(client: FlaskClient, tmp_path: Path) -> None:
    first = queue_pictures(client, "fake 1")
    video = str(upload(client, media_bytes("mp4", "fake 2")).get_json()["id"])
    rest = queue_pictures(client, "fake 3", "fake 4")
    with together(make_settings(tmp_path), one_by_one) as sizes:
        wait_until(all_in(client, [*first, video, *rest], "done"))
    assert sizes == [3]


def test_one_that_fails_fails_alone(client: FlaskClient, tmp_path: Path) -> None:
    ids = queue_pictures(client, "fake 1", "fake 2", "fake 3")

    def analyse(works: Works) -> list[Report | Exception]:
        outcomes = one_by_one(works)
        return [outcomes[0], MediaCorruptError("cut"), outcomes[2]]

    with together(make_settings(tmp_path), analyse):
        wait_until(lambda: job_state(client, ids[1]) == "failed")
        wait_until(all_in(client, [ids[0], ids[2]], "done"))
    assert client.get(f"/api/jobs/{ids[1]}").get_json()["error"]["code"] == "media_corrupt"


def test_an_error_nobody_foresaw_ends_all_of_them_with_a_code(client: FlaskClient, tmp_path: Path) -> None:
    ids = queue_pictures(client, "fake 1", "fake 2")

    def analyse(works: Works) -> list[Report | Exception]:
        raise ZeroDivisionError

    with together(make_settings(tmp_path), analyse):
        wait_until(all_in(client, ids, "failed"))
    assert client.get(f"/api/jobs/{ids[0]}").get_json()["error"]["code"] == "internal"


def test_cancelling_one_of_several(client: FlaskClient, tmp_path: Path) -> None:
    ids = queue_pictures(client, "fake 1", "sleep 30", "fake 3")
    with together(make_settings(tmp_path), one_by_one):
        wait_until(all_in(client, ids, "running"))
        assert client.delete(f"/api/jobs/{ids[1]}").get_json()["state"] == "cancelled"
        wait_until(all_in(client, [ids[0], ids[2]], "done"))
    assert job_state(client, ids[1]) == "cancelled"


def test_a_stopping_worker_gives_all_back(client: FlaskClient, tmp_path: Path) -> None:
    ids = queue_pictures(client, "sleep 30", "sleep 31", "sleep 32")
    with together(make_settings(tmp_path), one_by_one):
        wait_until(all_in(client, ids, "running"))
    for public_id in ids:
        job = client.get(f"/api/jobs/{public_id}").get_json()
        assert (job["state"], job["attempts"]) == ("queued", 0)


def test_leases_of_all_are_kept(client: FlaskClient, tmp_path: Path) -> None:
    short = make_settings(tmp_path, lease_s=1.0)
    ids = queue_pictures(client, "deaf 1.5", "deaf 1.6")
    with together(short, one_by_one), together(short, one_by_one):
        wait_until(all_in(client, ids, "done"))
    assert [client.get(f"/api/jobs/{public_id}").get_json()["attempts"] for public_id in ids] == [1, 1]


def test_what_was_tried_before_comes_alone(client: FlaskClient, tmp_path: Path, parts: Services) -> None:
    ids = queue_pictures(client, "fake 1", "fake 2", "fake 3")
    lost = parts.queue.claim("dead")
    assert lost is not None
    assert len(parts.queue.claim_batch(lost, 2)) == 2
    parts.queue.release_lost("dead")
    with together(make_settings(tmp_path), one_by_one) as sizes:
        wait_until(all_in(client, ids, "done"))
    assert sizes == []
    assert [client.get(f"/api/jobs/{public_id}").get_json()["attempts"] for public_id in ids] == [2, 2, 2]


def test_what_was_tried_before_is_not_taken_along(client: FlaskClient, parts: Services) -> None:
    queue_pictures(client, "fake 1", "fake 2")
    fresh, lost = parts.queue.claim("a"), parts.queue.claim("b")
    assert fresh is not None
    assert lost is not None
    parts.queue.release_lost("b")
    tried = parts.queue.claim("b")
    assert tried is not None
    assert (tried.job_id, tried.attempt) == (lost.job_id, 2)
    assert [parts.queue.give_back(each) for each in (tried, fresh)] == [True, True]
    first = parts.queue.claim("c")
    assert first is not None
    assert (first.job_id, first.attempt) == (fresh.job_id, 1)
    assert parts.queue.claim_batch(first, 3) == []


def test_pictures_of_an_older_server_are_taken_too(client: FlaskClient, parts: Services) -> None:
    queue_pictures(client, "fake", "real")
    upload(client, media_bytes("mp4"), "/api/detect?wait=0")
    with parts.database.write() as session:
        session.execute(sa.update(DetectionRow).values(media_kind=None))
    first = parts.queue.claim("w1")
    assert first is not None
    assert len(parts.queue.claim_batch(first, 8)) == 1


# What crashes leave in the store is swept at the start, and nothing else; files are for their user only.


@pytest.fixture
def stored(client: FlaskClient, parts: Services) -> Path:
    """The file of a waiting analysis."""
    assert upload(client, media_bytes("mp4")).status_code == 202
    with parts.database.read() as session:
        return parts.store.path(session.scalars(sa.select(MediaRow.stored_name)).one())


def test_the_start_sweeps_old_files_without_a_row(parts: Services, stored: Path) -> None:
    old, young = (stored.parent / f"{letter * 64}-00000000" for letter in "ab")
    for path in (old, young):
        path.write_bytes(b"x")
    os.utime(old, (1, 1))
    rest, kept = stored.with_name("gone-1.thumb"), stored.with_name(f"{stored.name}.thumb")
    for path in (rest, kept):
        path.write_bytes(b"x")
    assert sweep_without_row(parts.database, parts.store) == 1
    assert (rest.exists(), kept.exists()) == (False, True)
    assert (old.exists(), young.exists(), stored.exists()) == (False, True, True)


def test_a_living_upload_is_not_swept(parts: Services) -> None:
    with parts.store.incoming() as incoming:
        incoming.write(media_bytes())
        (half,) = parts.store.folder.glob("*.part")
        os.utime(half, (1, 1))
        assert parts.store.sweep_cut_off() == 0
        assert incoming.finish().size_bytes == 300
