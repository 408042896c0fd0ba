"""What becomes of votes: rows become votes, the pure rules of `utils.feedback.quarantine` judge them, rows are changed.

The worker judges, because one vote can change what becomes of others, and because a medium must have been looked at
first. Judging is a pure function of the rows, so that several workers may do it, and one that is killed loses nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from utils.config import LearningSettings, Settings
from utils.errors import WeightsError
from utils.feedback.quarantine import Outlook, Status, Vote, judge_votes, outlook_of
from utils.feedback.versions import Serving, serving
from utils.weights import SPEECH_FOLDER, weights_root
from web_app.auth.keys import KEY_OWNER
from web_app.db.models import FeedbackRow, MediaRow, ReviewedMediumRow
from web_app.feedback.votes import NOT_LOOKED_AT, find_medium, is_voice
from web_app.jobs.shared import Instance

LABEL_NUMBERS: dict[str, Literal[0, 1]] = {"real": 0, "fake": 1}


def judge(instance: Instance) -> int:
    """Judge all votes anew; returns of how many something else became."""
    with instance.database.read() as session:
        changes = judge_rows(session, instance.settings.learning)
    if changes:  # judged without the write lock, which others wait for; what changed since is judged next time
        with instance.database.write() as session:
            for change in changes:
                session.execute(change)
    return len(changes)


def judge_rows(session: Session, rules: LearningSettings) -> list[sa.Update]:
    """Judge every vote: for each of which something else becomes than is stored, what stores that.

    A vote that has changed or gone meanwhile, told by when and how it was given, is left as it is.
    """
    pairs = session.execute(_with_media()).all()
    votes = [vote_of(row, medium) for row, medium in pairs if medium is not None and medium.examined_at is not None]
    fates = {vote.id: (str(vote.status), vote.reason) for vote in judge_votes(votes, rules)}
    changes, vote = [], FeedbackRow
    for row, _ in pairs:
        state, reason = fates.get(str(row.id), (Status.WAITING.value, NOT_LOOKED_AT))
        if (state, reason) != (row.state, row.reason):
            same = vote.id == row.id, vote.actual == row.actual, vote.created_at == row.created_at
            changes.append(sa.update(vote).where(*same).values(state=state, reason=reason))
    return changes


def _with_media() -> sa.Select[FeedbackRow, ReviewedMediumRow]:
    medium = ReviewedMediumRow
    return sa.select(FeedbackRow, medium).outerjoin(medium, medium.media_sha256 == FeedbackRow.media_sha256)


def serving_speech(settings: Settings) -> Serving:
    """The version of speech in use; empty texts without one, or without what its learning needs."""
    root = weights_root(settings) / SPEECH_FOLDER
    found = serving(root)
    return found if (root / "learning" / found.base / "golden.safetensors").is_file() else Serving("", "", "")


def foresee(
    session: Session,
    row: FeedbackRow,
    settings: Settings,
    report: Mapping[str, Any] | None = None,
    judged: Mapping[str, Vote] | None = None,
    medium: MediaRow | None = None,
) -> tuple[Outlook, int]:
    """What the user may expect of a vote, also before the medium was looked at, and how many users it waits for.

    Until then it is judged with the votes on the same file and with this user's of that day, and by the size of the
    faces in the `report` that it is about; files that only look the same are found when the worker looks. Nothing is
    promised of a voice while the speech version in use cannot learn. `judged` is of `judge_beside`, `medium` its file.
    """
    status, missing = Status(row.state), 0
    if row.reason == NOT_LOOKED_AT and _is_hopeless(row, report or {}):
        status = Status.OUT_OF_DOMAIN
    elif status is Status.WAITING:
        judged = judge_beside(session, [row], settings.learning) if judged is None else judged
        if vote := judged.get(str(row.id)):  # else it was withdrawn this moment
            missing = vote.missing
            status = vote.status if row.reason == NOT_LOOKED_AT and vote.status is not None else status
    learned, tried = row.learned_version is not None, row.tried_version is not None
    outlook = outlook_of(status, missing, tried=tried, learned=learned)
    file = medium or (find_medium(session, row.media_sha256) if outlook is Outlook.WILL_BE_LEARNED else None)
    if outlook is Outlook.WILL_BE_LEARNED and is_voice(file, row.media_sha256):
        outlook = outlook if _voices_learn(settings) else Outlook.NOT_LEARNED
    return outlook, missing


def judge_beside(session: Session, rows: Iterable[FeedbackRow], rules: LearningSettings) -> dict[str, Vote]:
    """Judge those among some votes that wait, with what bears on them, before the worker does; by their ids."""
    waiting = [row for row in rows if row.state == Status.WAITING]
    wanted: list[sa.ColumnElement[bool]] = [FeedbackRow.media_sha256.in_({row.media_sha256 for row in waiting})]
    if strangers := [row for row in waiting if not row.trusted]:
        days = {dt.datetime.combine(row.created_at.astimezone(dt.UTC), dt.time(), dt.UTC) for row in strangers}
        time = FeedbackRow.created_at
        of_days = sa.or_(*(sa.and_(time >= day, time < day + dt.timedelta(days=1)) for day in days))
        wanted.append(sa.and_(FeedbackRow.client_id.in_({row.client_id for row in strangers}), of_days))
    pairs = session.execute(_with_media().where(sa.or_(*wanted))).all() if waiting else []
    votes = [vote_of(row, medium or ReviewedMediumRow()) for row, medium in pairs]
    return {vote.id: vote for vote in judge_votes(votes, rules)}


def _voices_learn(settings: Settings) -> bool:
    try:
        return bool(serving_speech(settings).base)
    except WeightsError:  # it is damaged
        return False


def _is_hopeless(row: FeedbackRow, report: Mapping[str, Any]) -> bool:
    """Whether a vote is about faces that are all too small to be judged: nothing is learned from it."""
    if row.media_sha256 != report.get("media", {}).get("sha256", row.media_sha256):
        return False  # about the voice
    faces = [face for face in report.get("faces", []) if not row.face_labels or str(face["id"]) in row.face_labels]
    return bool(faces) and all(
        any(reason["code"] == "small_face" for reason in face["verdict"]["reasons"]) for face in faces
    )


class VerdictToday(NamedTuple):
    """What the version in use says of an accepted vote, or the last one that is known to have said something.

    `state` is `holds`, `open` (never right), `lost` (right once, not now), or `unknown`: its features were made with
    other networks and its file is gone, so `prediction` is empty.
    """

    state: str
    prediction: str
    probability: float | None
    version: str


def verdict_today(row: FeedbackRow) -> VerdictToday:
    """By what stands in the row; until its first check that is the verdict that was shown."""
    if row.checked_version is None:
        state = "holds" if row.prediction == row.actual else "open"
        return VerdictToday(state, row.prediction, row.fake_probability, row.model_version)
    state = "open" if row.right_version is None else "lost"
    if row.checked_prediction is None:
        state = "unknown"
    elif row.right_version == row.checked_version:
        state = "holds"
    return VerdictToday(state, row.checked_prediction or "", row.checked_probability, row.checked_version)


def vote_of(row: FeedbackRow, medium: ReviewedMediumRow) -> Vote:
    """A vote about a medium that was looked at, as the rules see it."""
    return Vote(
        id=str(row.id),
        user=row.client_id,
        media_sha256=row.media_sha256,
        phash=None if medium.phash is None else int(medium.phash, 16),
        label=LABEL_NUMBERS[row.actual],
        time=row.created_at,
        trusted=row.trusted,
        anonymous=not row.client_id.startswith(KEY_OWNER),
        out_of_domain=unlearnable(row, medium),
        decision=None if medium.decision_label not in (None, row.actual) else medium.decision,
    )


def unlearnable(row: FeedbackRow, medium: ReviewedMediumRow) -> str:
    """Why nothing can be learned from a vote: the medium as a whole, or all the faces that it is about; else empty."""
    if medium.examined_at is None:
        return ""  # nobody knows yet
    looked_at = medium.features or {}
    if row.face_labels:
        reasons = [looked_at.get(face, "There is no such face.") for face in row.face_labels]
        return "" if "" in reasons else reasons[0]
    return medium.domain_reason or ""
