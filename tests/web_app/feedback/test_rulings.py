"""What becomes of votes on a server: judged by the worker, decided by moderators, gone when they are deleted."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from tests.web_app.feedback.hand_in import hand_in_worker, say, say_accepted, state_of, wait_for_state
from tests.web_app.helpers import clean_up, make_settings, running_worker, stored_files, wait_until
from utils.config import LearningSettings, SecuritySettings, Settings
from utils.errors import MediaError
from web_app.api.learning import Review, ReviewCase
from web_app.api.schemas import FeedbackState
from web_app.auth.keys import create_key
from web_app.db.models import FeedbackRow, ReviewedMediumRow, utc_now
from web_app.feedback.features import GONE
from web_app.feedback.rulings import foresee, judge_beside
from web_app.feedback.votes import NOT_LOOKED_AT
from web_app.services import EXTENSION, Services


@pytest.fixture
def keyed(tmp_path: Path) -> Settings:
    """Three users with keys of different rights, and a quorum of two."""
    return dataclasses.replace(
        make_settings(tmp_path),
        security=SecuritySettings(keys="on"),
        learning=LearningSettings(enough="trusted", quorum=2),
    )


def header(app: Flask, name: str, *scopes: str) -> dict[str, Any]:
    parts: Services = app.extensions[EXTENSION]
    key = create_key(parts.database, name, list(scopes) or ["analyse", "feedback"])
    return {"headers": {"Authorization": f"Bearer {key}"}}


def test_votes_are_judged(make_app: Callable[..., Flask], keyed: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.feedback.quarantine.STRANGERS_PER_DAY", 2)
    app = make_app(keyed)
    client = app.test_client()
    ann, bob = header(app, "ann"), header(app, "bob")
    eve = header(app, "eve", "analyse", "feedback", "moderate")
    with hand_in_worker(keyed):
        alone, _ = say(client, "fake", "fake", **ann)
        wait_until_reason(client, alone, "1 of 2", ann)
        second, _ = say(client, "fake", "fake", **bob)
        wait_for_state(client, alone, "accepted", **ann)
        wait_for_state(client, second, "duplicate", **bob)
        third, _ = say(client, "fake", "real", **eve)
        wait_for_state(client, third, "contradiction", **eve)
        assert (state_of(client, alone, **ann), state_of(client, second, **bob)) == ("contradiction", "contradiction")
        assert client.delete(f"/api/feedback/{third}", **eve).status_code == 204
        wait_for_state(client, alone, "accepted", **ann)
        own, _ = say(client, "real like new", "fake", **eve)
        wait_for_state(client, own, "accepted", **eve)
        near, _ = say(client, "fake 7 like new", "fake", **bob)
        wait_for_state(client, near, "duplicate", **bob)
        small, _ = say(client, "real small", "fake", **eve)
        wait_for_state(client, small, "out_of_domain", **eve)
        over, _ = say(client, "real 3", "fake", **bob)
        wait_for_state(client, over, "quota", **bob)
        counts = client.get("/api/rl/stats", **ann).get_json()["feedback"]
    assert counts["accepted"] == 2
    assert {state: n for state, n in counts["quarantined"].items() if n} == {
        "duplicate": 2, "out_of_domain": 1, "quota": 1,
    }  # fmt: skip


def test_what_will_become_of_an_answer_is_told_at_once(
    make_app: Callable[..., Flask], keyed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("utils.feedback.quarantine.STRANGERS_PER_DAY", 2)
    rules = dataclasses.replace(keyed, learning=LearningSettings(quorum=3))
    app = make_app(rules)
    client = app.test_client()
    ann, bob, cal = (header(app, name) for name in ("ann", "bob", "cal"))
    eve = header(app, "eve", "analyse", "feedback", "moderate")

    def told(order: str, label: str, who: dict[str, Any]) -> tuple[str, int]:
        _, answer = say(client, order, label, **who)
        FeedbackState.model_validate(answer.get_json())
        return answer.get_json()["outlook"], answer.get_json()["missing_users"]

    with hand_in_worker(rules):
        assert told("real 1", "fake", eve) == ("will_be_learned", 0)
        assert told("real 2", "fake", ann) == ("waits_for_users", 2)
        assert told("real 2", "fake", bob) == ("waits_for_users", 1)
        assert told("real 2", "fake", cal) == ("will_be_learned", 0)
        assert told("real 1", "real", bob)[0] == "waits_for_moderator"
        assert told("real 3", "fake", bob)[0] == "not_learned", "a stranger's quota of this day is used up"
        history = "/api/history"
        wait_until(lambda: client.get(history, **eve).get_json()["items"][0]["outlook"] == "waits_for_moderator")


def test_nothing_is_promised_of_a_small_face_or_where_moderators_decide(client: FlaskClient, parts: Services) -> None:
    vote = FeedbackRow(
        id=1, media_sha256="0" * 64, client_id="key:a", actual="fake", prediction="real", fake_probability=0.1,
        model_version="v", judgement="incorrect", category="miss", trusted=True, state="waiting",
        reason=NOT_LOOKED_AT, created_at=utc_now(), face_labels={},
    )  # fmt: skip
    with parts.database.write() as session:
        session.add(vote)
    faces = [{"id": n, "verdict": {"reasons": [{"code": code}]}} for n, code in enumerate(("small_face", "below_band"))]
    with parts.database.read() as session:
        assert foresee(session, vote, Settings(), {"faces": faces})[0] == "will_be_learned"
        assert foresee(session, vote, Settings(), {"faces": faces[:1]})[0] == "not_learned"
        vote.face_labels = {"0": "fake"}
        assert foresee(session, vote, Settings(), {"faces": faces})[0] == "not_learned"
        assert (
            foresee(session, vote, Settings(learning=LearningSettings(enough="moderator")))[0] == "waits_for_moderator"
        )
    with parts.database.write() as session:
        session.execute(sa.update(FeedbackRow).values(face_labels={"1": "fake"}))
    with parts.database.read() as session:
        about_one = session.scalars(sa.select(FeedbackRow)).one()
        assert foresee(session, about_one, Settings(), {"faces": faces})[0] == "will_be_learned"


def test_an_old_vote_is_foreseen_with_those_of_its_day_alone(parts: Services) -> None:
    noon = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)
    with parts.database.write() as session:
        for number, hours in enumerate((0, 11, -12, 12, -13, 9000)):
            session.add(FeedbackRow(
                id=number, media_sha256=f"{number:064}", client_id="key:a", actual="fake", prediction="real",
                model_version="v", judgement="incorrect", category="miss", trusted=False, state="waiting",
                reason=NOT_LOOKED_AT, created_at=noon + dt.timedelta(hours=hours), face_labels={},
            ))  # fmt: skip
    with parts.database.read() as session:
        old = session.get_one(FeedbackRow, 0)
        assert set(judge_beside(session, [old], LearningSettings())) == {"0", "1", "2"}


def test_the_history_asks_no_more_for_many_votes_than_for_few(make_app: Callable[..., Flask], keyed: Settings) -> None:
    app = make_app(keyed)
    client, parts = app.test_client(), app.extensions[EXTENSION]
    ann, eve = header(app, "ann"), header(app, "eve", "analyse", "feedback", "moderate")
    asked: list[str] = []
    sa.event.listen(parts.database.engine, "before_cursor_execute", lambda _, __, text, *___: asked.append(text))

    def statements() -> int:
        asked.clear()
        told = [[i["outlook"] for i in client.get("/api/history", **who).get_json()["items"]] for who in (ann, eve)]
        assert set(told[0]) == {"waits_for_users"}
        assert set(told[1]) == {"will_be_learned"}
        return len(asked)

    with running_worker(keyed):
        counts = []
        for number in (1, 4):
            for each in range(number):
                for who, order in ((ann, "real"), (eve, "fake")):
                    say(client, f"{order} {number}{each}", "fake", **who)
            counts.append(statements())
    assert counts[0] == counts[1]


def wait_until_reason(client: FlaskClient, public_id: str, part: str, keywords: dict[str, Any]) -> None:
    wait_until(
        lambda: part in client.get(f"/api/detections/{public_id}", **keywords).get_json()["feedback"]["reason"], 30
    )


def test_a_moderator_decides(make_app: Callable[..., Flask], keyed: Settings) -> None:
    app = make_app(keyed)
    client = app.test_client()
    ann, bob = header(app, "ann"), header(app, "bob")
    judge = header(app, "judge", "analyse", "moderate")
    with hand_in_worker(keyed):
        first, _ = say(client, "fake", "fake", **ann)
        second, _ = say(client, "fake", "real", **bob)
        wait_for_state(client, first, "contradiction", **ann)
        assert client.get("/api/rl/review", **ann).status_code == 403
        review = client.get("/api/rl/review?state=contradiction", **judge).get_json()
        Review.model_validate(review)
        (case,) = review["items"]
        assert [vote["actual"] for vote in case["votes"]] == ["fake", "real"]
        assert "client_id" not in str(review)
        assert client.get(case["media"], **judge).status_code == 503  # this worker makes no copies
        assert client.get(case["media"], **bob).status_code == 403
        where = f"/api/rl/review/{case['media_sha256']}"
        assert client.post(where, json={"decision": "accept"}, **judge).status_code == 422
        assert client.post(f"{where[:-1]}x", json={"decision": "reject"}, **judge).status_code == 404
        answer = client.post(where, json={"decision": "accept", "label": "real", "note": "seen it"}, **judge)
        ReviewCase.model_validate(answer.get_json())
        wait_for_state(client, second, "accepted", **bob)
        wait_for_state(client, first, "rejected", **ann)
        client.post(where, json={"decision": "reject"}, **judge)
        wait_for_state(client, second, "rejected", **bob)


def test_features_live_as_long_as_a_vote(client: FlaskClient, settings: Settings, parts: Services) -> None:
    with hand_in_worker(settings):
        kept, _ = say(client, "real", "fake")
        gone, _ = say(client, "fake", "real")
        for public_id in (kept, gone):
            wait_for_state(client, public_id, "accepted")
        assert len(list(parts.paths.features.iterdir())) == 2
        assert client.delete(f"/api/detections/{gone}").status_code == 204
        (folder,) = parts.paths.features.iterdir()
        assert [path.name for path in folder.iterdir()] == ["deciding.npz"]
        assert clean_up(parts, 1, utc_now() + dt.timedelta(days=365)) == 1
        assert not stored_files(parts)
        assert client.get("/api/rl/stats").get_json()["feedback"]["accepted"] == 1, "its features are enough"
        assert folder.is_dir()


def test_a_file_that_is_gone_before_it_was_looked_at(served: FlaskClient, settings: Settings, parts: Services) -> None:
    say(served, "real", "fake")
    for path in stored_files(parts):
        path.unlink()
    with hand_in_worker(settings):
        cases = wait_until(lambda: served.get("/api/rl/review?state=out_of_domain").get_json()["items"])
    assert cases[0]["votes"][0]["reason"] == GONE


def row_of(parts: Services) -> ReviewedMediumRow:
    with parts.database.read() as session:
        return session.scalars(sa.select(ReviewedMediumRow)).one()


@pytest.mark.parametrize("old", [True, False])
def test_what_lies_on_the_disk_outlives_rows_and_file(
    old: bool, client: FlaskClient, settings: Settings, parts: Services
) -> None:
    """An instance folder of an earlier version has `facts.json` beside the features."""
    with hand_in_worker(settings):
        public_id = say_accepted(client)
    with parts.database.write() as session:
        row = session.scalars(sa.select(ReviewedMediumRow)).one()
        phash = row.phash
        row.phash = row.features = row.experts = row.examined_at = None
    (folder,) = parts.paths.features.iterdir()
    if old:
        (folder / "facts.json").write_text(json.dumps({"phash": phash, "features": {"deciding": ""}}))
    else:
        (folder / "face-3.npz").write_text("3")
    for path in stored_files(parts):
        path.unlink()
    with hand_in_worker(settings):
        wait_until(lambda: row_of(parts).examined_at)
        wait_for_state(client, public_id, "accepted")
    row = row_of(parts)
    assert (row.phash, row.features) == ((phash, {"deciding": ""}) if old else (None, {"deciding": "", "3": ""}))


def test_a_file_that_cannot_be_decoded_is_kept_and_not_learned_from(
    client: FlaskClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path, faces: object) -> object:
        raise MediaError("It is broken.")

    monkeypatch.setattr("tests.web_app.feedback.hand_in.look", broken)
    with hand_in_worker(settings):
        public_id, _ = say(client, "real", "fake")
        wait_for_state(client, public_id, "out_of_domain")
