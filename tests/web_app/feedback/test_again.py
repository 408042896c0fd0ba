"""What may be learned again, what a killed training finds, and what does not stop the learning."""

from __future__ import annotations

import dataclasses
import datetime as dt
import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from tests.web_app.feedback.hand_in import FIGURES, FakeLearner, hand_in_worker, look, say_accepted
from tests.web_app.helpers import media_bytes, upload
from utils.config import LearningSettings, Settings
from utils.errors import NothingNewError, TrainingDataError
from utils.feedback.quarantine import LearningItem
from utils.feedback.versions import Serving
from web_app.db.models import TRAIN, FeedbackRow, JobRow, ReviewedMediumRow, utc_now
from web_app.feedback.learner import Progress
from web_app.feedback.rulings import judge, judge_rows
from web_app.feedback.training import is_rebased, request_training, run_training, start_if_due, training_is_due
from web_app.feedback.votes import withdraw_vote
from web_app.jobs.queue import Claim
from web_app.services import Services
from web_app.worker import LearningTasks

SERVED = Serving("v1", "v1", "one")


def serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have that one served, of voices too, which cannot be learned then."""
    for module in ("training", "rulings"):
        monkeypatch.setattr(f"web_app.feedback.{module}.serving", lambda root: SERVED)


def accepted(client: FlaskClient, settings: Settings) -> None:
    with hand_in_worker(settings):
        say_accepted(client)


def quiet(stage: str, done: float) -> None:
    return None


def outcome(items: Sequence[LearningItem], progress: Progress, job: str, digest: str) -> dict[str, Any]:
    return {"version": "v1-r0001", "promoted": True, "code": "promoted", "digest": digest, "new": FIGURES}


def train(parts: Services, claim: Claim, function: Callable[..., dict[str, Any]] = outcome) -> dict[str, Any]:
    return run_training(parts, FakeLearner(look, function), claim, quiet)


def ask(parts: Services, served: Serving) -> None:
    with parts.database.write() as session:
        request_training(session, parts, served, "me")


def begin(parts: Services) -> Claim:
    """A training that has been asked for, in a worker's hands."""
    ask(parts, SERVED)
    claim = parts.queue.claim("w", (TRAIN,))
    assert claim is not None
    return claim


def test_another_base_or_a_rollback_makes_learning_possible_again(
    client: FlaskClient, settings: Settings, parts: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch)
    accepted(client, settings)
    claim = begin(parts)
    parts.queue.finish_task(claim, train(parts, claim))
    with pytest.raises(NothingNewError):
        ask(parts, SERVED)
    automatic = LearningSettings(auto_after=1)
    new_base, back = Serving("v2", "v2", "two"), Serving("v0", "v1", "one")
    with parts.database.read() as session:
        rebased = [is_rebased(session, parts, served) for served in (SERVED, back, new_base)]
        due = [training_is_due(session, automatic, utc_now(), rebased=each) for each in (False, True)]
    assert (rebased, due) == ([False, False, True], [False, True])
    assert not parts.settings.learning.auto_after, (
        "and still another base is learned for by itself, once all is prepared"
    )
    due = [
        start_if_due(parts, served, all_prepared=prepared)
        for served, prepared in ((SERVED, True), (back, True), (new_base, False), (new_base, True))
    ]
    assert due == [False, False, False, True]
    with parts.database.write() as session:
        session.execute(sa.delete(JobRow).where(JobRow.state == "queued"))
    ask(parts, back)
    with parts.database.write() as session:
        session.execute(sa.delete(JobRow).where(JobRow.state == "queued"))
    ask(parts, new_base)


def test_a_base_of_speech_counts_where_there_are_voices_to_learn(
    client: FlaskClient, settings: Settings, parts: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("web_app.feedback.training", "web_app.feedback.rulings", "web_app.worker"):
        monkeypatch.setattr(f"{module}.serving", lambda root: SERVED)
    accepted(client, settings)
    claim = begin(parts)
    before = {"speech_base_sha256": "former", "speech_digest": "of voices that were withdrawn since"}
    parts.queue.finish_task(claim, train(parts, claim) | before)
    with hand_in_worker(settings):
        say_accepted(client, "real", "fake")
    assert not start_if_due(parts, SERVED, all_prepared=True), "auto_after and auto_hours are 0"
    claim = begin(parts)
    result = train(parts, claim)
    assert not before.keys() & result.keys(), result
    parts.queue.finish_task(claim, result | before)

    with parts.database.write() as session:  # both are voices
        session.execute(sa.update(ReviewedMediumRow).values(features={"voice": ""}))
    assert not start_if_due(parts, SERVED, all_prepared=True)
    with pytest.raises(NothingNewError, match=r"\] Voices wait: the version of speech in use has no golden set"):
        ask(parts, SERVED)
    monkeypatch.setattr("web_app.feedback.training.serving_speech", lambda settings: Serving("s2", "s2", "two"))
    assert start_if_due(parts, SERVED, all_prepared=True)


def test_a_training_is_due_when_what_was_learned_counts_no_more(
    client: FlaskClient, settings: Settings, parts: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch)
    with hand_in_worker(settings):
        ids = [say_accepted(client, order, label) for order, label in (("fake", "real"), ("real", "fake"))]
    claim = begin(parts)
    parts.queue.finish_task(claim, train(parts, claim))

    def due(settings: LearningSettings, hours: float = 0) -> bool:
        with parts.database.read() as session:
            return training_is_due(session, settings, utc_now() + dt.timedelta(hours=hours))

    after, hours = LearningSettings(auto_after=1), LearningSettings(auto_hours=2)
    assert [due(after), due(hours, 3)] == [False, False]
    assert client.delete(f"/api/feedback/{ids[0]}").status_code == 204
    assert [due(after), due(LearningSettings(auto_after=2)), due(hours, 1), due(hours, 3)] == [True, False, False, True]
    claim = begin(parts)
    parts.queue.fail(claim, TrainingDataError("There is no golden set."))
    assert [due(after), due(after, 2)] == [False, True]


def test_a_candidate_that_was_overtaken_is_tried_again(
    client: FlaskClient, settings: Settings, parts: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch)
    accepted(client, settings)
    claim = begin(parts)
    moved = {"version": "v1-r0001", "promoted": False, "code": "moved"}
    parts.queue.finish_task(claim, train(parts, claim, lambda *_: moved))
    with parts.database.read() as session:
        assert training_is_due(session, LearningSettings(auto_after=1), utc_now())


def test_a_judgement_does_not_touch_a_vote_that_has_changed_meanwhile(
    client: FlaskClient, settings: Settings, parts: Services
) -> None:
    accepted(client, settings)
    with parts.database.write() as session:
        session.execute(sa.update(FeedbackRow).values(state="waiting", reason=""))
    with parts.database.read() as session:
        (change,) = judge_rows(session, LearningSettings())
    with parts.database.write() as session:
        session.execute(sa.update(FeedbackRow).values(actual="fake"))
        session.execute(change)
    with parts.database.read() as session:
        assert session.scalars(sa.select(FeedbackRow.state)).one() == "waiting"
    with parts.database.write() as session:
        session.execute(sa.update(FeedbackRow).values(actual="real"))
        session.execute(change)
    with parts.database.read() as session:
        assert session.scalars(sa.select(FeedbackRow.state)).one() == "accepted"
        assert judge_rows(session, LearningSettings()) == []


def test_a_retried_job_marks_the_votes_of_its_first_attempt(
    client: FlaskClient, settings: Settings, parts: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch)
    accepted(client, settings)
    claim = begin(parts)
    done: list[dict[str, Any]] = []

    def killed_once(items: Sequence[LearningItem], progress: Progress, job: str, digest: str) -> dict[str, Any]:
        assert job == claim.public_id
        if done:
            return done[0]
        done.append(outcome(items, progress, job, digest))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(parts, claim, killed_once)
    with hand_in_worker(dataclasses.replace(settings)):  # a vote that the killed training knew nothing of
        say_accepted(client, "real", "fake")
    result = train(parts, claim, killed_once)
    assert result["version"] == "v1-r0001"
    with parts.database.read() as session:
        learned = list(session.scalars(sa.select(FeedbackRow.learned_version).order_by(FeedbackRow.id)))
    assert learned == ["v1-r0001", None]


def test_damaged_features_are_made_again(
    client: FlaskClient, settings: Settings, parts: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted(client, settings)
    claim = begin(parts)
    with monkeypatch.context() as damage:
        damage.setattr(FakeLearner, "is_whole", lambda *_: False)
        with pytest.raises(NothingNewError):
            train(parts, claim)
    (features,) = parts.paths.features.glob("*/deciding.npz")
    features.unlink()
    tasks = LearningTasks(parts, FakeLearner(look, outcome))
    tasks.when_idle()
    assert features.is_file()


def test_a_vote_withdrawn_as_its_training_starts_is_not_damaged(
    client: FlaskClient, settings: Settings, parts: Services, caplog: pytest.LogCaptureFixture
) -> None:
    accepted(client, settings)
    claim = begin(parts)

    class Late(FakeLearner):
        def is_whole(self, features: Path) -> bool:
            with parts.database.read() as session:
                said = session.scalars(sa.select(FeedbackRow)).all()
            assert all(withdraw_vote(parts, each.media_sha256, each.client_id) for each in said)
            return features.is_file()

    with pytest.raises(NothingNewError):
        run_training(parts, Late(look, outcome), claim, lambda *_: None)
    assert "damaged" not in caplog.text


def test_a_full_disk_lets_the_learning_rest(client: FlaskClient, settings: Settings, parts: Services) -> None:
    asked: list[Path] = []

    def full(path: Path, face: int | None) -> Any:
        asked.append(path)
        raise OSError(errno.ENOSPC, "No space left on device")

    with hand_in_worker(settings):
        report = upload(client, media_bytes(order="fake"), "/api/detect?wait=1").get_json()
    client.post("/api/feedback", json={"id": report["id"], "feedback": "incorrect", "actual": "real"})
    tasks = LearningTasks(parts, FakeLearner(full, outcome))
    tasks.when_idle()
    tasks.when_idle()
    assert len(asked) == 1, "it rests"
    tasks = LearningTasks(parts, FakeLearner(look, outcome))
    tasks.when_idle()
    with parts.database.read() as session:
        assert session.scalar(sa.select(FeedbackRow.state)) == "accepted"


def test_a_change_that_bears_no_later_time_is_judged(client: FlaskClient, settings: Settings, parts: Services) -> None:
    accepted(client, settings)
    assert judge(parts) == 0
    with parts.database.write() as session:
        session.execute(sa.update(FeedbackRow).values(state="waiting"))
    assert judge(parts) == 1
