"""The quarantine over the database: rows become votes, the pure rules of `utils.feedback.quarantine` judge them.

The worker judges, because one voice can change what becomes of others, and because a medium must have been looked at
first. Judging is a pure function of the rows, so that several workers may do it, and one that is killed loses nothing.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from utils.config import LearningSettings
from utils.feedback.quarantine import Status, Vote, judge_votes
from web_app.auth.keys import KEY_OWNER
from web_app.db.models import FeedbackRow, ReviewedMediumRow
from web_app.db.session import Database
from web_app.feedback.votes import NOT_LOOKED_AT

LABEL_NUMBERS: dict[str, Literal[0, 1]] = {"real": 0, "fake": 1}


def judge(database: Database, rules: LearningSettings) -> int:
    """Judge all votes anew; returns of how many something else became."""
    with database.read() as session:
        changes = judge_rows(session, rules)
    if changes:  # judged without the write lock, which others wait for; what changed since is judged next time
        with database.write() as session:
            for change in changes:
                change.write(session)
    return len(changes)


@dataclass(frozen=True)
class Change:
    """What becomes of one voice, told by its row and by when and how it was given."""

    row_id: int
    actual: str
    created_at: dt.datetime
    state: str
    reason: str

    def write(self, session: Session) -> None:
        """Store it, unless the voice has changed or gone meanwhile."""
        voice = FeedbackRow
        session.execute(
            sa.update(voice)
            .where(voice.id == self.row_id, voice.actual == self.actual, voice.created_at == self.created_at)
            .values(state=self.state, reason=self.reason)
        )


def judge_rows(session: Session, rules: LearningSettings) -> list[Change]:
    """Judge every voice and give those of which something else becomes than is stored; nothing is written."""
    pairs = session.execute(
        sa.select(FeedbackRow, ReviewedMediumRow).outerjoin(
            ReviewedMediumRow, ReviewedMediumRow.media_sha256 == FeedbackRow.media_sha256
        )
    ).all()  # fmt: skip
    votes = [vote_of(row, medium) for row, medium in pairs if medium is not None and medium.examined_at is not None]
    fates = {vote.id: (str(vote.status), vote.reason) for vote in judge_votes(votes, rules)}
    waiting = (Status.WAITING.value, NOT_LOOKED_AT)
    return [
        Change(row.id, row.actual, row.created_at, *fate)
        for row, _ in pairs
        if (fate := fates.get(str(row.id), waiting)) != (row.state, row.reason)
    ]


def vote_of(row: FeedbackRow, medium: ReviewedMediumRow) -> Vote:
    """A voice about a medium that was looked at, as the rules see it."""
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
        decision=_decision(row, medium),
    )


def unlearnable(row: FeedbackRow, medium: ReviewedMediumRow) -> str:
    """Why nothing can be learned from a voice: the medium as a whole, or all the faces that it is about; else empty."""
    looked_at = medium.features or {}
    if row.face_labels:
        reasons = [looked_at.get(face, "There is no such face.") for face in row.face_labels]
        return "" if "" in reasons else reasons[0]
    return medium.domain_reason or ""


def _decision(row: FeedbackRow, medium: ReviewedMediumRow) -> Literal["accept", "reject"] | None:
    if medium.decision_label not in (None, row.actual):
        return None
    if medium.decision == "accept":
        return "accept"
    return "reject" if medium.decision == "reject" else None
