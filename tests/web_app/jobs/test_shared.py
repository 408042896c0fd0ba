"""Machines that share database and bucket only: versions, history, keys and feedback log are alike on all of them."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask

from benchmarks.servers import S3, temporary
from tests.speech_fixtures import speech_version
from tests.web_app.db import postgres
from tests.web_app.feedback.hand_in import say
from tests.web_app.helpers import make_settings, media_bytes, running_worker, upload, wait_until
from tests.web_app.stand_ins import following, learn
from utils.config import Settings, WeightsSettings
from utils.errors import ConflictError
from utils.feedback.history import append_training, read_history, verify_history
from utils.weights import SPEECH_FILE, SPEECH_FOLDER, current_name, list_versions, verify_version, weights_root
from web_app.db.migrations import migrate
from web_app.db.models import DetectionRow, FeedbackRow, JournalRow
from web_app.feedback.features import drop_orphans
from web_app.feedback.stats import roll_back
from web_app.feedback.votes import reconcile
from web_app.jobs.shared import VERSIONS, Instance
from web_app.services import EXTENSION, Services
from web_app.storage.bucket import BucketStore


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with pytest.MonkeyPatch.context() as patch, temporary(S3) as running:
        for name, value in S3.KEYS.items():
            patch.setenv(name, value)
        yield running


@pytest.fixture
def machine(tmp_path: Path, server: S3, tiny_root: Path) -> Iterator[Callable[[str], Settings]]:
    """Settings of a machine of this name: a folder and weights of its own, the same database and bucket."""
    url, bucket = postgres.database_url(tmp_path), server.bucket(tmp_path.name.replace("_", "-").lower()[:60])

    def make(name: str) -> Settings:
        folder = tmp_path / name
        root = shutil.copytree(tiny_root, folder / "trained_models", symlinks=True)
        plain = make_settings(folder)
        storage = dataclasses.replace(plain.storage, database_url=url, files="s3", s3_url=bucket)
        return dataclasses.replace(plain, storage=storage, weights=WeightsSettings(dir=str(root)))

    yield make
    postgres.drop_database(url)


@pytest.fixture
def two(machine: Callable[[str], Settings]) -> Iterator[tuple[Instance, Instance]]:
    with ExitStack() as held:
        both = [held.enter_context(contextlib.closing(Instance.of(machine(name)))) for name in ("a", "b")]
        for each in both:
            each.paths.create()
            migrate(each.database)
        yield both[0], both[1]


def now(instance: Instance) -> str:
    """The version that this machine chooses after a look at what is shared."""
    instance.shared._look_at = 0.0
    instance.shared.follow()
    return current_name(weights_root(instance.settings))


def test_a_promotion_and_a_rollback_reach_every_machine(two: tuple[Instance, Instance]) -> None:
    a, b = two
    with a.shared.acting():
        name = learn(a)
    assert now(b) == name == "tiny-r0001"
    first, second = (verify_version(weights_root(each.settings), name) for each in two)
    assert first.sha256 == second.sha256
    networks = [weights_root(b.settings) / each / "cnn.safetensors" for each in ("tiny", name)]
    assert networks[0].samefile(networks[1])  # what a machine has is not fetched again
    assert roll_back(b, None) == {"version": "tiny", "previous": name}
    assert now(a) == "tiny"
    assert a.paths.training_history.read_bytes() == b.paths.training_history.read_bytes()
    check = verify_history(a.paths.training_history)
    assert (check.ok, len(check.entries)) == (True, 3)


def test_versions_of_speech_reach_every_machine_too(two: tuple[Instance, Instance]) -> None:
    a, b = two
    roots = [weights_root(each.settings) / SPEECH_FOLDER for each in two]
    roots[0].mkdir()
    speech_version(roots[0])
    shutil.copytree(roots[0], roots[1])
    with a.shared.acting():
        name = learn(a, speech=True)
    assert (now(b), current_name(roots[1])) == ("tiny", name) == ("tiny", "s1-r0001")
    assert verify_version(roots[0], name).sha256 == verify_version(roots[1], name).sha256
    assert (roots[1] / name / SPEECH_FILE).samefile(roots[1] / "s1" / SPEECH_FILE)
    assert roll_back(b, "s1") == {"version": "s1", "previous": name}
    assert (now(a), current_name(roots[0])) == ("tiny", "s1")
    assert a.paths.speech_history.read_bytes() == b.paths.speech_history.read_bytes()
    assert len(verify_history(b.paths.speech_history).entries) == 3


def test_what_the_golden_set_rejected_stays_where_it_is(two: tuple[Instance, Instance]) -> None:
    a, b = two
    with a.shared.acting():
        learn(a, promoted=False)
    assert now(b) == "tiny"
    assert list_versions(weights_root(b.settings)) == ("tiny",)
    assert len(read_history(b.paths.training_history).entries) == 1
    assert isinstance(a.store, BucketStore)
    assert [key for key, _ in a.store.bucket.keys(VERSIONS)] == [f"{VERSIONS}tiny"]


def test_of_two_who_act_at_once_one_is_refused_and_the_chain_stays_whole(two: tuple[Instance, Instance]) -> None:
    a, b = two
    with a.shared.acting():
        first = learn(a)

    def act() -> None:
        with a.shared.acting():
            append_training(a.paths.training_history, {"event": "drill"})
            roll_back(b, "tiny")

    with pytest.raises(ConflictError, match="meanwhile"):
        act()
    assert now(a) == now(b) == "tiny" != first
    assert a.paths.training_history.read_bytes() == b.paths.training_history.read_bytes()
    assert verify_history(a.paths.training_history).ok


def test_a_version_of_the_same_name_that_another_machine_made_is_not_served(
    two: tuple[Instance, Instance], caplog: pytest.LogCaptureFixture
) -> None:
    a, b = two
    learn(b, promoted=False)  # a second worker that learns, which nobody should start
    with a.shared.acting():
        learn(a)
    assert now(b) == "tiny"
    assert "tiny-r0001 of this machine is another one" in caplog.text


def test_servers_have_the_same_keys(machine: Callable[[str], Settings], make_app: Callable[..., Flask]) -> None:
    apps = [make_app(machine(name)) for name in ("a", "b")]
    parts: list[Services] = [app.extensions[EXTENSION] for app in apps]
    assert parts[0].secret == parts[1].secret
    assert parts[0].report_keys.public() == parts[1].report_keys.public()
    parts[0].report_keys.rotate()
    parts[0].shared.again(parts[0].paths.report_keys)
    now(parts[1])
    assert parts[0].report_keys.public() == parts[1].report_keys.public()


def test_votes_given_to_two_servers_are_one_log(
    machine: Callable[[str], Settings], make_app: Callable[..., Flask]
) -> None:
    apps = [make_app(machine(name)) for name in ("a", "b")]
    parts: list[Services] = [app.extensions[EXTENSION] for app in apps]
    with running_worker(parts[0].settings):
        for number in range(4):
            assert say(apps[number % 2].test_client(), f"fake {number}", "real")[1].status_code == 201
    with parts[0].database.read() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(JournalRow)) == 4
        rows = session.scalars(sa.select(FeedbackRow.media_sha256).order_by(FeedbackRow.id)).all()
    assert reconcile(parts[1]).written == 0  # it writes the file, which a backup keeps
    kept = parts[1].paths.feedback_log.read_bytes()
    assert kept.count(b"\n") == 4
    with parts[1].database.write() as session:  # the database is lost
        for table in (FeedbackRow, JournalRow, DetectionRow):
            session.execute(sa.delete(table))
    assert reconcile(parts[1]).written == 4
    with parts[0].database.read() as session:
        assert session.scalars(sa.select(FeedbackRow.media_sha256).order_by(FeedbackRow.id)).all() == rows
    reconcile(parts[1])
    assert parts[1].paths.feedback_log.read_bytes() == kept


def test_features_of_a_vote_that_was_taken_back_elsewhere_are_dropped(two: tuple[Instance, Instance]) -> None:
    (two[0].paths.features / ("ab" * 32)).mkdir()
    assert drop_orphans(two[0]) == 1
    assert list(two[0].paths.features.iterdir()) == []


def test_workers_change_at_a_promotion_and_mix_no_versions(
    machine: Callable[[str], Settings], make_app: Callable[..., Flask]
) -> None:
    """Under load: no request fails, each report is of one version, and after ten seconds all are of the new one."""
    app = make_app(machine("server"))
    client, parts = app.test_client(), app.extensions[EXTENSION]
    ids: list[str] = []

    with ExitStack() as running:
        for name in ("a", "b"):
            settings = machine(name)
            instance = running.enter_context(contextlib.closing(Instance.of(settings)))
            instance.paths.create()
            analyse, tasks = following(instance)
            running.enter_context(running_worker(settings, analyse, tasks=tasks))
        name = ""
        for number in range(40):
            if number == 10:
                with parts.shared.acting():
                    name = learn(parts)
            answer = upload(client, media_bytes("mp4", "deaf 0.05", 400 + number))
            assert answer.status_code == 202
            ids.append(answer.get_json()["id"])
            time.sleep(0.1)
        wait_until(lambda: all(client.get(f"/api/jobs/{each}").get_json()["state"] == "done" for each in ids))
    versions = [client.get(f"/api/detections/{each}").get_json()["model_version"].split() for each in ids]
    assert all(before == after for before, after in versions)
    assert {before for before, _ in versions} == {"tiny", name}
    assert versions[-1][0] == name
