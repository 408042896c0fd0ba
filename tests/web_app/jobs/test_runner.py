"""The worker's loop: progress, cancelling, stopping in the middle, leases that outlive long stages, cleaning up."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from sqlalchemy.exc import OperationalError

from tests.web_app.helpers import (
    clean_up,
    fake_analyse,
    job_state,
    make_report,
    make_settings,
    media_bytes,
    running_worker,
    stored_files,
    upload,
    wait_until,
)
from utils.config import Settings
from utils.types import Report
from web_app.db.models import TRAIN, DetectionRow, JobRow, WorkerRow, utc_now
from web_app.jobs import runner
from web_app.jobs.heartbeat import EXIT_STUCK
from web_app.jobs.queue import Claim, JobQueue
from web_app.jobs.runner import Progress, WorkerTasks, run_worker
from web_app.jobs.shared import Instance
from web_app.services import Services
from web_app.storage.files import MediaStore
from web_app.worker import clean_up as clean_up_now


def queue_one(client: FlaskClient, order: str = "fake") -> str:
    return str(upload(client, media_bytes("mp4", order)).get_json()["id"])


def test_stages_that_pass_quickly_are_not_noted_but_the_one_of_speech(
    client: FlaskClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[str] = []

    def note(_: JobQueue, __: Claim, stage: str, ___: float) -> bool:
        noted.append(stage)
        return True

    monkeypatch.setattr(JobQueue, "report_progress", note)
    monkeypatch.setattr(runner, "PROGRESS_INTERVAL_S", 60.0)

    def analyse(path: Path, progress: Progress) -> Report:
        for stage in ("decode", "detect", "speech", "experts"):
            progress(stage, 0.5)
        return make_report()

    public_id = queue_one(client)
    with running_worker(settings, analyse):
        wait_until(lambda: job_state(client, public_id) == "done")
    assert noted == ["decode", "speech"]


def test_progress_reaches_the_row(client: FlaskClient, settings: Settings) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def analyse(path: Path, progress: Progress) -> Report:
        progress("detect", 0.4)
        reached.set()
        assert go_on.wait(60)
        return make_report()

    public_id = queue_one(client)
    with running_worker(settings, analyse):
        assert reached.wait(60)
        job = client.get(f"/api/jobs/{public_id}").get_json()
        go_on.set()
        wait_until(lambda: job_state(client, public_id) == "done")
    assert (job["state"], job["stage"], job["fraction"]) == ("running", "detect", 0.4)


def test_a_running_job_is_cancelled_at_its_next_progress(client: FlaskClient, settings: Settings) -> None:
    first = queue_one(client, "sleep 30")
    with running_worker(settings):
        wait_until(lambda: job_state(client, first) == "running")
        assert client.delete(f"/api/jobs/{first}").get_json()["state"] == "cancelled"
        second = queue_one(client)
        wait_until(lambda: job_state(client, second) == "done")
    assert job_state(client, first) == "cancelled"


def test_a_job_deleted_while_it_runs_ends(client: FlaskClient, settings: Settings) -> None:
    first = queue_one(client, "sleep 30")
    with running_worker(settings):
        wait_until(lambda: job_state(client, first) == "running")
        assert client.delete(f"/api/detections/{first}").status_code == 204
        second = queue_one(client)
        wait_until(lambda: job_state(client, second) == "done")


def no_facts() -> dict[str, Any]:
    raise OSError(5, "Input/output error")


def test_a_long_stage_keeps_its_lease(client: FlaskClient, tmp_path: Path) -> None:
    """Also where the worker cannot tell its facts; where it can: `test_leases_of_all_are_kept`."""
    tasks = WorkerTasks(facts=no_facts)
    short = make_settings(tmp_path, lease_s=3.0)  # a shorter one can run out beside other load
    public_id = queue_one(client, "deaf 4.5")
    with running_worker(short, tasks=tasks), running_worker(short):
        wait_until(lambda: job_state(client, public_id) == "done")
    assert client.get(f"/api/jobs/{public_id}").get_json()["attempts"] == 1


def test_a_locked_database_is_survived(
    client: FlaskClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = JobQueue.finish
    refusals = [OperationalError("COMMIT", {}, Exception("database is locked"))] * 2

    def finish(self: JobQueue, claim: Claim, report: Report) -> bool:
        if refusals:
            raise refusals.pop()
        return real(self, claim, report)

    monkeypatch.setattr(JobQueue, "finish", finish)
    public_id = queue_one(client)
    with running_worker(settings):
        wait_until(lambda: job_state(client, public_id) == "done")
    assert client.get(f"/api/jobs/{public_id}").get_json()["attempts"] == 1


def test_a_disk_error_while_cleaning_up_does_not_end_the_worker(
    client: FlaskClient, parts: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept = threading.Event()

    def sweep_cut_off(self: MediaStore) -> int:
        swept.set()
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(MediaStore, "sweep_cut_off", sweep_cut_off)
    with running_worker(parts.settings, tasks=WorkerTasks(when_idle=lambda: clean_up_now(parts, utc_now()))):
        assert swept.wait(60)
        public_id = queue_one(client)
        wait_until(lambda: job_state(client, public_id) == "done")


def test_a_worker_shows_itself_and_signs_off(client: FlaskClient, settings: Settings, parts: Services) -> None:
    def workers() -> list[WorkerRow]:
        with parts.database.read() as session:
            return list(session.scalars(sa.select(WorkerRow)))

    with running_worker(settings, model_version="v-7"):
        (found,) = wait_until(workers)
        assert found.facts == {"model_version": "v-7"}
    assert workers() == []


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The codes with which the worker, here a thread, wanted to end its process."""
    codes: list[int] = []
    monkeypatch.setattr("web_app.jobs.heartbeat.os._exit", codes.append)
    return codes


def test_an_analysis_without_an_end_ends_the_process(client: FlaskClient, tmp_path: Path, exits: list[int]) -> None:
    queue_one(client, "deaf 2")
    with running_worker(make_settings(tmp_path, lease_s=1.5, longest_s=0.1)):
        wait_until(lambda: exits)
    assert set(exits) == {EXIT_STUCK}


def test_an_idle_look_that_hangs_ends_the_process(parts: Services, tmp_path: Path, exits: list[int]) -> None:
    stop = threading.Event()

    def hang() -> None:
        stop.set()
        wait_until(lambda: exits)

    tasks = WorkerTasks(when_idle=hang)
    with contextlib.closing(Instance.of(make_settings(tmp_path, lease_s=0.3, longest_s=0.2))) as instance:
        run_worker(instance, fake_analyse, stop, tasks=tasks)
    assert set(exits) == {EXIT_STUCK}


def test_a_training_may_take_as_long_as_it_likes(parts: Services, tmp_path: Path, exits: list[int]) -> None:
    with parts.database.write() as session:
        parts.queue.add_task(session, TRAIN, {})
    stop = threading.Event()

    def train(claim: Claim, progress: Progress) -> dict[str, Any]:
        time.sleep(1.0)
        stop.set()
        return {"loss": 0.5}

    tasks = WorkerTasks(background={TRAIN: train})
    short = make_settings(tmp_path, lease_s=1.5, longest_s=0.4)
    with contextlib.closing(Instance.of(short)) as instance:
        run_worker(instance, fake_analyse, stop, tasks=tasks)
    with parts.database.read() as session:
        assert session.scalars(sa.select(JobRow.result)).one() == {"loss": 0.5}
    assert exits == []


def test_old_analyses_are_deleted(served: FlaskClient, parts: Services) -> None:
    old, young = (upload(served, media_bytes(order=order)).get_json()["id"] for order in ("fake", "real"))
    with parts.database.write() as session:
        session.execute(
            sa.update(JobRow).where(JobRow.public_id == old).values(created_at=utc_now() - dt.timedelta(days=8))
        )
    assert clean_up(parts, 0, utc_now()) == 0
    assert clean_up(parts, 7, utc_now()) == 1
    assert served.get(f"/api/detections/{old}").status_code == 404
    assert served.get(f"/api/detections/{young}").status_code == 200
    assert len(stored_files(parts)) == 1
    with parts.database.read() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(DetectionRow)) == 1


def test_old_analyses_that_wait_are_kept(client: FlaskClient, parts: Services) -> None:
    waiting = queue_one(client)
    assert clean_up(parts, 7, utc_now() + dt.timedelta(days=8)) == 0
    assert job_state(client, waiting) == "queued"
